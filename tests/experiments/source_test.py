# SPDX-License-Identifier: Apache-2.0
"""The task that a model comes from, named by the section ``source`` of a config."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

import jft
from experiments import build, feed, finetune, run_config, training
from jft import train
from jft.config import apply_overrides, read_config, resolve, to_dict
from tests.experiments.conftest import BERT
from tests.tiny_tokenizer import make_tokenizer

ROOT = Path(__file__).parents[2]
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")
CERTAIN = BERT | dict.fromkeys(DROPOUTS, 0.0)


def logits_of(model, file):
    """Of a model by itself, without a line of the experiments."""
    texts = [line.split("\t")[0] for line in file.read_text().splitlines()]
    batch = model.processor(texts, padding=True)
    fields = {k: np.asarray(batch[k]) for k in ("input_ids", "attention_mask")}
    return np.asarray(model.apply_fn(model.params, fields, key=None))


def accuracy_of(model, file):
    """The same, against the second column."""
    labels = [int(line.split("\t")[1]) for line in file.read_text().splitlines()]
    predictions = np.argmax(logits_of(model, file), -1)
    assert 0 < predictions.mean() < 1, "it says the same of all"
    return float(np.mean(predictions == labels))


@pytest.fixture(scope="module")
def reviewer(tmp_path_factory, reviews):
    """A folder of a small BERT that has a classifier of reviews."""
    model = jft.init_model(
        CERTAIN,
        key=jax.random.key(3),
        task="sequence_classification",
        class_names=("negative", "positive"),
        processor=make_tokenizer(model_max_length=64),
    )
    folder = tmp_path_factory.mktemp("reviewer") / "model"
    # far enough from 0, and balanced, so that it does not say the same of all
    params = jax.tree.map(lambda x: x * 8 if x.ndim == 2 else x, model.params)
    logits = logits_of(model._replace(params=params), reviews / "dev.tsv")
    middle = np.median(logits[:, 1] - logits[:, 0])
    params["classifier"]["bias"] = jax.numpy.asarray([middle, 0.0])
    jft.save(folder, model._replace(params=params))
    return folder


@pytest.fixture(scope="module")
def topics(tmp_path_factory):
    """Another task of texts: three classes in a csv."""
    rows = [f"{'a film plot casts good'[i % 9 :]},{'xyz'[i % 3]}" for i in range(48)]
    file = tmp_path_factory.mktemp("topics") / "topics.csv"
    file.write_text("text,targets\n" + "\n".join(rows) + "\n")
    return file


@pytest.fixture(scope="module")
def flags(reviewer, topics, reviews):
    """A run from reviews to topics, which looks back at ``dev.tsv``."""
    overrides = {
        "model.pretrained": reviewer,
        "data.global_batch_size": 8,
        "data.max_length": 16,
        "train.num_steps": 4,
        "evals.eval_every_steps": 2,
        "source.name": "tsv",
        "source.path": reviews,
        "source.columns": {"text": 0, "targets": 1},
        "source.split_sizes": {},
        "source.split_paths": {"train": "train.tsv", "test": "dev.tsv"},
    }
    return [
        f"--config={ROOT}/configs/own.py:source=csv,path={topics}",
        *(f"--config.{name}={value}" for name, value in overrides.items()),
    ]


@pytest.fixture(scope="module")
def finished(flags, call, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("looks_back") / "run"
    result = call(finetune, *flags, f"--workdir={workdir}")
    assert result.status == 0, result.err
    return workdir, result.out


def test_it_is_measured_by_the_head_that_it_had_before(finished, reviewer, reviews):
    workdir, out = finished
    found = json.loads((workdir / "summary.json").read_text())["forgetting"]
    assert "source task: reviews (train 96, test 24 examples), by accuracy" in out
    assert (found["source"], found["metric"]) == ("reviews", "accuracy")
    before = accuracy_of(jft.load(reviewer), reviews / "dev.tsv")
    assert found["before"] == pytest.approx(before)

    # the exported body under the old head
    old, tuned = jft.load(reviewer), jft.load(workdir / "export")
    whole = {**tuned.params, "classifier": old.params["classifier"]}
    after = accuracy_of(old._replace(params=whole), reviews / "dev.tsv")
    assert found["after"] == pytest.approx(after)


def test_the_old_head_is_what_the_new_model_drew_anew(finished):
    job = build.make_job(read_config(str(finished[0])))
    source = job.source
    assert set(source.old.head) == {"classifier/kernel", "classifier/bias"}
    whole = source.old.params(job.model.params)
    assert whole["classifier"]["bias"].shape == (2,)
    assert whole["bert"] == job.model.params["bert"]


def mean_loss(model, params, texts, targets):
    """Each text in a row of its own."""
    batch = model.processor(list(texts), padding=True)
    fields = {k: np.asarray(batch[k]) for k in ("input_ids", "attention_mask")}
    logits = np.asarray(model.apply_fn(params, fields, key=None), np.float64)
    losses = np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(logits)), targets]
    return losses.mean()


@pytest.mark.parametrize("batching", ["pack", "length", "pad"])
@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
def test_replayed_texts_may_share_rows(finished, batching, compute_dtype):
    """Of both tasks, each with those of its own."""
    overrides = {
        "data.batching": batching,
        "train.compute_dtype": compute_dtype,
        "train.replay.share": 0.4,
        "train.replay.weight": 2.0,
    }
    spec = f"{finished[0]}"
    config = resolve(apply_overrides(to_dict(read_config(spec)), overrides))
    job = build.make_job(run_config.complete(config))
    source, batch = job.source, job.loader.largest()
    assert ("first_tokens" in batch) == (batching == "pack")
    losses = []
    for model, examples, part in (
        (job.model, job.splits["train"], batch),
        (source.old.model, source.splits["train"], batch[train.REPLAYED]),
    ):
        rows = [examples[int(index)] for index in part["index"]]
        texts, targets = zip(*[(r["text"], r["targets"]) for r in rows], strict=True)
        losses.append(mean_loss(model, model.params, texts, np.array(targets)))
    assert len(batch[train.REPLAYED]["index"]) in (4, 8)
    step_fn = training.make_train_step(job, state_shardings=None)
    _, metrics = step_fn(training.init_state(job), batch)
    exact = {"rtol": 1e-4 if compute_dtype == "float32" else 0.05}
    np.testing.assert_allclose(metrics["replayed_loss"], losses[1], **exact)
    np.testing.assert_allclose(metrics["loss"], losses[0] + 2 * losses[1], **exact)


def test_its_texts_have_a_length_and_rows_of_their_own(finished):
    overrides = {
        "data.batching": "pack",
        "source.batching": "pad",
        "source.max_length": 5,
        "train.replay.share": 0.4,
    }
    config = resolve(apply_overrides(to_dict(read_config(f"{finished[0]}")), overrides))
    job = build.make_job(run_config.complete(config))
    batch = job.loader.largest()
    assert "first_tokens" in batch
    assert batch["input_ids"].shape[1] > 5
    replayed = batch[train.REPLAYED]
    assert "first_tokens" not in replayed
    assert replayed["input_ids"].shape[1] == 5
    measured = feed.make_eval_batches(
        job.source.config.data, job.source.tables["test"], job.source.old.model
    )
    assert {part["input_ids"].shape[1] for part in measured} == {5}
