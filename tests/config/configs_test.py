# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from configs import common, digits
from jft.config import load_config_file, resolve, to_dict, to_steps

FOLDER = Path(__file__).parents[2] / "configs"
ARGS = {
    "digits.py": ["", *(f":recipe={name}" for name in digits.RECIPES)],
    "letters.py": [""],
}
EVERY = [(name, arg) for name, args in ARGS.items() for arg in args]


def load(name, arg=""):
    return resolve(load_config_file(f"{FOLDER / name}{arg}")[1])


def test_every_config_file_is_in_the_table():
    files = {p.name for p in FOLDER.glob("*.py")} - {"__init__.py", "common.py"}
    assert files == set(ARGS)


def test_the_base_config_lists_exactly_the_keys_of_the_schema():
    base = common.base_config().to_dict()
    again = to_dict(resolve(base))

    def keys(values):
        return {
            key: keys(value) if isinstance(value, dict) else None
            for key, value in values.items()
        }

    assert keys(again) == keys(base)


@pytest.mark.parametrize(("name", "arg"), EVERY)
def test_every_config_resolves_and_says_how_to_run_it(name, arg):
    config = load(name, arg)
    assert "validation" in config.data.split_sizes
    assert config.evals.metric in config.evals.metrics
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
