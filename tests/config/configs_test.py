# SPDX-License-Identifier: Apache-2.0
"""Every config resolves, says how to run it, and has a short quicktest."""

from pathlib import Path

import jax
import pytest

from configs import digits, forgetting
from experiments import run_config
from jft.config import load_config_file, resolve, to_steps
from jft.data import SOURCES
from jft.tasks import TASKS

FOLDER = Path(__file__).parents[2] / "configs"
ARGS = {
    "chat_sft.py": ["", ":pretrained=a/llama"],
    "clothing.py": ["", ":pretrained=a/vit"],
    "digits.py": ["", *(f":recipe={name}" for name in digits.RECIPES)],
    "domain_lm.py": ["", ":epochs=3,pretrained=a/bert"],
    "few_shot.py": ["", ":pretrained=a/bert,shots=4"],
    "forgetting.py": [
        *(f":method={name}" for name in forgetting.METHODS),
        *(f":model=minilm,pretrained=a/b,method={x}" for x in forgetting.METHODS),
    ],
    "letters.py": [""],
    "multi30k_translate.py": ["", ":pretrained=a/marian"],
    "own.py": ["", *(f":task={task},source=jsonl,path=a" for task in TASKS)],
    "sst2.py": ["", ":epochs=3,pretrained=a/bert"],
    "wikiann_ner.py": ["", ":epochs=3,pretrained=a/bert"],
    "xquad_qa.py": ["", ":epochs=3,pretrained=a/bert"],
}
EVERY = [(name, arg) for name, args in ARGS.items() for arg in args]


@pytest.fixture(autouse=True)
def _one_device(monkeypatch):
    """The configs are meant for any number; not every batch divides over four."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)


def load(name, arg=""):
    return run_config.complete(resolve(load_config_file(f"{FOLDER / name}{arg}")[1]))


def test_every_config_file_is_in_the_table():
    files = {p.name for p in FOLDER.glob("*.py")} - {"__init__.py", "common.py"}
    assert files == set(ARGS)


@pytest.mark.parametrize(("name", "arg"), EVERY)
def test_every_config_resolves_and_says_how_to_run_it(name, arg):
    config = load(name, arg)
    assert "validation" in {**config.data.split_sizes, **config.data.split_paths}
    assert config.data.source in SOURCES
    task = TASKS[config.data.task]
    assert config.evals.metric == config.evals.metrics[0] in task.metrics
    assert config.evals.mode in ("max", "min")
    columns = {column.name for column in task.columns}
    assert set(config.data.columns) <= columns | {"id"}
    assert f"--config=configs/{name}" in (FOLDER / name).read_text()


@pytest.mark.parametrize(("name", "arg"), EVERY)
def test_quicktest_is_short_and_changes_no_meaning(name, arg):
    config = load(name, arg)
    quick = load(name, f"{arg},quicktest" if arg else ":quicktest")
    lengths = {"steps_per_epoch": 1000, "examples_per_step": 10}
    num_steps = to_steps(quick.train.num, **lengths)
    assert num_steps <= 12
    every = to_steps(quick.optim.unfreeze.every, **lengths, num_steps=num_steps)
    layers = 4 + 2  # of the shipped model: embeddings, blocks, head
    assert every * (layers - 1) < num_steps
    assert to_steps(quick.evals.eval_every, **lengths) < num_steps
    assert to_steps(quick.checkpoint.save_every, **lengths) < num_steps
    assert quick.optim.unfreeze.method == config.optim.unfreeze.method
    assert (quick.partition, quick.model) == (config.partition, config.model)


def test_the_recipes_differ_only_in_what_moves():
    recipe, full, head, scratch = (
        load("digits.py", f":recipe={n}") for n in digits.RECIPES
    )
    assert load("digits.py") == recipe
    assert recipe.optim.layer_decay is not None
    assert recipe.optim.unfreeze.method == "top_down"
    assert {label for _, label in full.partition.rules} == {"head", "backbone"}
    assert {label for _, label in head.partition.rules} == {"head", "frozen"}
    assert scratch.model.pretrained is None
    for other in (full, head, scratch):
        assert other.data == recipe.data
        assert other.train == recipe.train


def test_the_reviews_are_read_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("JFT_DATA", str(tmp_path))
    assert load("sst2.py").data.path == str(tmp_path / "sst2")
    monkeypatch.delenv("JFT_DATA")
    beside = FOLDER.parents[1] / "shared" / "data" / "sst2"
    assert load("sst2.py").data.path == str(beside)


def test_the_reviews_are_learned_as_the_trainer_of_transformers_does_by_default():
    config = load("sst2.py", ":epochs=3,pretrained=a/bert")
    assert config.model.pretrained == "a/bert"
    assert str(config.train.num) == "3 epochs"
    optim = config.optim
    assert (optim.optimizer, optim.learning_rate, optim.weight_decay) == (
        "adamw",
        5e-5,
        0.0,
    )
    assert (optim.schedule, optim.warmup.amount, optim.clip_norm) == ("linear", 0, 1.0)
    assert (config.data.global_batch_size, config.data.max_length) == (32, 64)
    assert {label for _, label in config.partition.rules} == {"all"}
