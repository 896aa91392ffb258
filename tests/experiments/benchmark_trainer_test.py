# SPDX-License-Identifier: Apache-2.0
"""The recipe of the configs is Trainer's, and the comparison runs."""

import itertools
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import jft
from experiments import benchmark, build, training
from experiments.benchmarks import trainer
from jft import data, params, paths, train
from jft.config import apply_overrides, load_config_file, resolve
from tests.experiments import tiny_data
from tests.experiments.conftest import BERT
from tests.tiny_tokenizer import make_tokenizer

CONFIGS = Path(__file__).parents[2] / "configs"

torch = pytest.importorskip("torch", reason="torch is in the extras parity and bench")


@pytest.fixture
def still_bert(tiny_bert, tmp_path):
    """The small BERT without dropout, so that both do the same."""
    model = jft.load(tiny_bert)
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    jft.save(tmp_path / "still", model._replace(config=model.config | still))
    return tmp_path / "still"


NUM_STEPS = 10
SETTINGS = {
    "train.num_steps": NUM_STEPS,
    "data.global_batch_size": 16,
    "optim.learning_rate": 2e-3,
    "optim.clip_norm": 0.05,  # of gradients that are larger and of some that are not
}


def train_with_torch(folder, batches, config):
    """What Trainer does to a batch, with the settings that it has by default."""
    from transformers import (
        AutoModelForSequenceClassification,
        TrainingArguments,
        get_scheduler,
    )

    defaults = {
        f.name: f.default for f in TrainingArguments.__dataclass_fields__.values()
    }
    model = AutoModelForSequenceClassification.from_pretrained(folder).train()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=config.optim.learning_rate,
        betas=(defaults["adam_beta1"], defaults["adam_beta2"]),
        eps=defaults["adam_epsilon"],
        weight_decay=config.optim.weight_decay,
    )
    schedule = get_scheduler(
        "linear", optimizer, num_warmup_steps=0, num_training_steps=NUM_STEPS
    )
    losses, norms = [], []
    for batch in batches:
        names = ("input_ids", "attention_mask", "token_type_ids")
        batch = data.unpack_batch(batch)  # as Trainer pads them
        inputs = {name: torch.tensor(batch[name]).long() for name in names}
        targets = torch.tensor(batch["targets"]).long()
        loss = model(**inputs, labels=targets).loss
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(
            model.parameters(), config.optim.clip_norm
        )
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        norms.append(norm.item())
    return losses, norms, {k: x.detach().numpy() for k, x in model.named_parameters()}


def test_ten_steps_equal_those_of_trainer(still_bert, reviews, tmp_path):
    spec = f"{CONFIGS}/sst2.py:pretrained={still_bert}"
    here = {**SETTINGS, "data.path": str(reviews)}
    config = resolve(apply_overrides(load_config_file(spec)[1], here))
    job = build.make_job(config)
    jft.save(tmp_path / "start", job.model)
    stream = job.loader.batches()
    batches = list(itertools.islice(stream, NUM_STEPS))
    stream.close()
    expected, norms, ends = train_with_torch(tmp_path / "start", batches, config)
    assert min(norms) < config.optim.clip_norm < max(norms)

    history = []
    result = train.fit(
        training.init_state(job),
        training.make_train_step(job, state_shardings=None),
        batches=lambda step: iter(batches[step:]),
        num_steps=NUM_STEPS,
        hooks=[lambda m: history.append(m.metrics and float(m.metrics["loss"]))],
    )
    np.testing.assert_allclose(history[1:], expected, rtol=1e-4)
    starts = paths.flatten(job.model.params)
    for path, x in paths.flatten(jax.device_get(result.state.trainable)).items():
        if path.endswith("key/bias"):  # its gradient is zero but for rounding
            continue
        end = params.from_tensor(path, ends[params.to_key(path)], job.model.family)
        moved = np.abs(np.asarray(starts[path]) - end).max()
        assert moved > 1e-3, path
        np.testing.assert_allclose(x, end, atol=2e-2 * moved, err_msg=path)


@pytest.fixture(scope="module")
def long_bert(tmp_path_factory):
    """The small BERT with positions for the longest texts of the configs."""
    config = {**BERT, "max_position_embeddings": 256}
    model = jft.init_model(
        config,
        key=jax.random.key(0),
        task="base",
        processor=make_tokenizer(model_max_length=256),
    )
    folder = tmp_path_factory.mktemp("bert") / "long"
    jft.save(folder, model)
    return folder


# config -> its data, how Trainer is run, the metric
COMPARISONS = {
    "sst2.py:moves=top_down": (
        tiny_data.write_sst2,
        ["--batches=own", "--evaluate"],
        "accuracy",
    ),
    "wikiann_ner.py": (tiny_data.write_tagged, ["--batches=same"], "entity_f1"),
    "xquad_qa.py": (tiny_data.write_questions, ["--batches=grouped"], "f1"),
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_the_comparison_runs(name, call, long_bert, tmp_path):
    pytest.importorskip("accelerate", reason="accelerate is in the extra bench")
    write, more, metric = COMPARISONS[name]
    precision = jax.config.jax_default_matmul_precision
    output = tmp_path / "out.json"
    arguments = f"pretrained={long_bert},epochs=4"
    try:
        result = call(
            benchmark,
            "--suite=trainer",
            f"--config={CONFIGS / name}{',' if ':' in name else ':'}{arguments}",
            f"--set=data.path={write(tmp_path)}",
            *more,
            "--seeds=3",
            f"--output={output}",
        )
    finally:
        jax.config.update("jax_default_matmul_precision", precision)
    assert result.status == 0, result.err
    facts = json.loads(output.read_text())
    ours, theirs = facts["results"]
    assert (ours["by"], theirs["by"]) == ("jft", "Trainer")
    for run in (ours, theirs):
        assert run["config"].split()[0] == name.partition(".")[0]
        assert (run["metric"], run["seed"]) == (metric, 3)
        assert 0 <= run["score"] <= 1
        assert run["seconds"] > 0
    assert ours["steps"] == theirs["steps"] > 1
    assert {"torch", "jax", "transformers"} <= set(facts["versions"])
    row = result.out.splitlines()[-1].split()
    assert row[0] == name.partition(".")[0]
    assert metric in row


@pytest.mark.parametrize("moves", ["head", "top_down"])
def test_trainers_parameters_open_when_ours_do(moves, long_bert, tmp_path):
    from transformers import AutoModelForSequenceClassification, TrainerState

    name = f"{CONFIGS}/sst2.py:moves={moves},epochs=3,pretrained={long_bert}"
    here = {"data.path": str(tiny_data.write_sst2(tmp_path))}
    job = build.make_job(resolve(apply_overrides(load_config_file(name)[1], here)))
    jft.save(tmp_path / "start", job.model)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "start")
    opener = trainer.make_opener(job, model)
    for step in range(job.plan.num_steps):
        opener.on_step_begin(None, TrainerState(global_step=step), None)
        moving = {n for n, p in model.named_parameters() if p.requires_grad}
        groups = job.plan.open_groups_at(step, [])
        expected = {
            params.to_key(path)
            for path, label in paths.flatten(job.labels).items()
            if label != "frozen"
            and (groups is None or job.model.layer_index(path) in groups)
        }
        assert moving == expected
    if moves == "head":
        assert moving == {"classifier.weight", "classifier.bias"}


def test_evaluation_needs_batches_of_trainers_own(call, tiny_bert):
    config = f"--config={CONFIGS}/sst2.py:pretrained={tiny_bert}"
    argv = ["--suite=trainer", config, "--evaluate", "--batches=same"]
    refused = call(benchmark, *argv)
    assert refused.status == 2
    assert "--evaluate" in refused.err


def test_other_tasks_are_refused(call, tiny_bert):
    config = f"--config={CONFIGS}/chat_sft.py:pretrained={tiny_bert}"
    refused = call(benchmark, "--suite=trainer", config)
    assert refused.status == 2
    assert "'chat'" in refused.err
    assert "'question_answering'" in refused.err


def test_the_table_has_means_and_differences():
    runs = [
        {
            "config": config,
            "metric": "accuracy",
            "by": by,
            "seed": seed,
            "score": score,
            "seconds": seconds,
        }
        for config, by, seed, score, seconds in (
            ("sst2", "jft", 0, 0.80, 10.0),
            ("sst2", "Trainer", 0, 0.81, 20.0),
            ("sst2", "jft", 1, 0.82, 20.0),
            ("sst2", "Trainer", 1, 0.79, 30.0),
            ("own", "jft", 0, 0.5, 1.0),
            ("own", "Trainer", 0, 0.75, 4.0),
        )
    ]
    lines = trainer.describe(runs).splitlines()
    rows = [
        [cell.strip() for cell in line.split("  ") if cell.strip()]
        for line in lines[-2:]
    ]
    assert rows == [
        [
            *("sst2", "accuracy", "81.00 ± 1.41", "80.00 ± 1.41", "+1.00"),
            *("15.00 ± 7.07", "25.00 ± 7.07", "0.60"),
        ],
        [
            *("own", "accuracy", "50.00", "75.00", "-25.00"),
            *("1.00", "4.00", "0.25"),
        ],
    ]
