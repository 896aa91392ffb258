# SPDX-License-Identifier: Apache-2.0
"""The recipe of ``configs/sst2.py`` is Trainer's, and the comparison runs."""

import itertools
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import jft
from experiments import build, compare_trainer
from jft import data, params, paths, tasks, train
from jft.config import apply_overrides, load_config_file, resolve
from tests.tasks.table import ROWS as TASK_ROWS
from tests.tasks.table import make_model

SST2 = Path(__file__).parents[2] / "configs" / "sst2.py"

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
    "optim.clip_norm": 0.1,  # of gradients that are larger and of some that are not
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
    spec = f"{SST2}:pretrained={still_bert}"
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
        build.init_state(job),
        build.make_train_step(job, state_shardings=None),
        batches=lambda step: iter(batches[step:]),
        num_steps=NUM_STEPS,
        hooks=[lambda m: history.append(m.metrics and float(m.metrics["loss"]))],
    )
    np.testing.assert_allclose(history[1:], expected, rtol=1e-4)
    starts = paths.flatten(job.model.params)
    for path, x in paths.flatten(jax.device_get(result.state.trainable)).items():
        if path.endswith("key/bias"):  # its gradient is zero but for rounding
            continue
        end = params.from_tensor(path, ends[params.to_key(path)])
        moved = np.abs(np.asarray(starts[path]) - end).max()
        assert moved > 1e-3, path
        np.testing.assert_allclose(x, end, atol=2e-2 * moved, err_msg=path)


@pytest.mark.parametrize("batches", ["own", "same"])
def test_the_comparison_runs(batches, call, tiny_bert, reviews, tmp_path):
    pytest.importorskip("accelerate", reason="accelerate is in the extra bench")
    precision = jax.config.jax_default_matmul_precision
    output = tmp_path / "out.json"
    try:
        result = call(
            compare_trainer,
            f"--config={SST2}",
            f"--model={tiny_bert}",
            f"--data={reviews}",
            "--epochs=1",
            "--seeds=3",
            f"--batches={batches}",
            f"--output={output}",
        )
    finally:
        jax.config.update("jax_default_matmul_precision", precision)
    assert result.status == 0, result.err
    facts = json.loads(output.read_text())
    shown = [(run["by"], run["config"], run["steps"]) for run in facts["runs"]]
    assert shown == [("jft", "sst2", 3), ("Trainer", "sst2", 3)]
    assert all(0 <= run["score"] <= 1 < run["seconds"] + 1 for run in facts["runs"])
    assert {"torch", "jax", "transformers"} <= set(facts["versions"])
    assert result.out.splitlines()[-1].split()[:2] == ["sst2", "accuracy"]


@pytest.mark.parametrize("task", ["token_classification", "question_answering"])
def test_what_trainer_is_fed_gives_the_loss_of_jft(task, tmp_path):
    """Rows, collated as Trainer gets them, cost transformers' model what they cost us."""
    import transformers

    row = TASK_ROWS[task]
    examples = data.make_examples(
        data.ArraySource(row.columns), tasks.get_task(task).columns
    )
    model = make_model(row, task, examples.class_names)
    jft.save(tmp_path / "model", model.pretrained)
    table = data.tokenize(examples, model.fields, cache_dir=tmp_path)
    head = model.pretrained.family.heads[model.task.head]
    peer = getattr(transformers, head).from_pretrained(tmp_path / "model").eval()
    rows = compare_trainer.make_rows(table, task)
    batch = compare_trainer.Collator(table.padding)(rows)
    with torch.no_grad():
        expected = peer(**batch).loss.item()
    (ours,) = data.make_eval_batches(table, global_batch_size=len(table))
    outputs = model.pretrained.apply_fn(model.pretrained.params, ours, key=None)
    total, weight = model.task.make_loss()(outputs, ours)
    assert float(total / weight) == pytest.approx(expected, rel=1e-4)


def test_the_table_has_means_and_differences():
    runs = [
        {
            "by": by,
            "config": "sst2",
            "metric": "accuracy",
            "seed": seed,
            "score": score,
            "seconds": seconds,
        }
        for by, seed, score, seconds in (
            ("jft", 0, 0.80, 10.0),
            ("Trainer", 0, 0.81, 20.0),
            ("jft", 1, 0.82, 20.0),
            ("Trainer", 1, 0.79, 30.0),
        )
    ]
    cells = compare_trainer.describe(runs).splitlines()[-1].split("  ")
    assert [cell.strip() for cell in cells if cell.strip()] == [
        "sst2",
        "accuracy",
        "81.00 ± 1.41",
        "80.00 ± 1.41",
        "+1.00",
        "15.00 ± 7.07",
        "25.00 ± 7.07",
        "0.60",
    ]
