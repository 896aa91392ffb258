# SPDX-License-Identifier: Apache-2.0
"""Runs that keep the old task by its examples or by its old head's answers."""

import dataclasses
import itertools
import json
import shutil

import jax
import numpy as np
import pytest

import jft
from experiments import (
    build,
    feed,
    finetune,
    interpolate,
    models,
    run_config,
    training,
    two_heads,
)
from jft import data, train
from jft.config import apply_overrides, load_config_file, resolve
from tests.experiments.conftest import BERT
from tests.experiments.tiny import MODEL
from tests.tiny_tokenizer import make_tokenizer

SHARE, WEIGHT = 1 / 3, 0.5
LETTERS = {
    "source.name": "letters",
    "source.options": {"num_per_class": 3, "seed": 1},
    "source.split_sizes": {"train": 2, "test": 1},
    "source.split_per_class": True,
    "data.augment": None,
}
SECTIONS = ("data", "source")
REPLAY = {"train.replay.share": SHARE, "train.replay.weight": WEIGHT}


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """A folder of the small model with a head for letters."""
    source = data.load_source("letters", None, num_per_class=1)
    config = {"model_type": "vit", **MODEL}
    model = jft.init_model(
        config,
        key=jax.random.key(4),
        class_names=sorted(set(source.column("targets"))),
        processor=models.processor_config_of(config),
    )
    folder = tmp_path_factory.mktemp("letters") / "model"
    params = jax.tree.map(lambda x: x * 4 if x.ndim == 2 else x, model.params)
    jft.save(folder, model._replace(params=params))
    return folder


@pytest.fixture(scope="module")
def make_job(tiny, letters):
    def make(overrides):
        _, config = load_config_file(tiny.partition("=")[2])
        overrides = {"model.pretrained": str(letters), **LETTERS, **overrides}
        read = resolve(apply_overrides(config, overrides))
        return build.make_job(run_config.complete(read))

    return make


@pytest.fixture(scope="module")
def job(make_job):
    return make_job({**REPLAY, "train.lwf.weight": 2.0})


@pytest.fixture(scope="module", params=["plain", "lora and r_drop"])
def any_job(request, job, make_job):
    """The same sums: an adapter adds nothing yet, and nothing is dropped out."""
    if request.param == "plain":
        return job
    more = {"adapter.method": "lora", "train.r_drop": 1.0, "train.lwf.weight": 2.0}
    return make_job(REPLAY | more)


def cross_entropy(logits, targets):
    logits = np.asarray(logits, np.float64)
    logits = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -logits[np.arange(len(targets)), targets].mean()


def test_each_step_has_examples_of_the_part_to_learn_from(job):
    batches = list(itertools.islice(job.loader.batches(), 26))
    sizes = {len(batch["targets"]) for batch in batches}
    replayed = [batch[train.REPLAYED] for batch in batches]
    assert sizes == {8}
    assert {len(batch["targets"]) for batch in replayed} == {4}  # of 12 in all
    # two of each of 52 letters, four a step: an epoch is 26 steps
    seen = np.concatenate([batch["pixel_values"] for batch in replayed])
    learned = job.source.splits["train"]
    settings = job.loader.settings[train.REPLAYED]
    assert settings["source"] == repr(learned)
    counts = np.bincount(np.concatenate([batch["targets"] for batch in replayed]))
    assert counts.tolist() == [2] * 52
    assert len(np.unique(seen.reshape(len(seen), -1), axis=0)) == 104


def test_the_loss_is_that_of_three_parts(any_job, letters):
    job, old = any_job, jft.load(letters)
    feeding = two_heads.add_old_answers(job.config, job.old, jax.device_put)
    batch = feeding(job.loader.largest())
    said = old.apply_fn(old.params, batch, key=None)
    np.testing.assert_allclose(batch["old_logits"], said, rtol=1e-4, atol=1e-5)

    step_fn = training.make_train_step(job, state_shardings=None)
    batch = {**batch, "old_logits": said + np.arange(52.0, dtype=np.float32)[None] % 3}
    _, metrics = step_fn(training.init_state(job), batch)
    replayed = batch[train.REPLAYED]
    of_old = cross_entropy(
        old.apply_fn(old.params, replayed, key=None), replayed["targets"]
    )
    new = job.model.apply_fn(job.model.params, batch, key=None)
    then, now = (
        np.asarray(jax.nn.log_softmax(x / 2), np.float64)
        for x in (batch["old_logits"], said)
    )
    moved = (np.exp(then) * (then - now)).sum(-1).mean()
    expected = cross_entropy(new, batch["targets"]) + WEIGHT * of_old + 2.0 * moved
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["replayed_loss"], of_old, rtol=1e-5)


@pytest.fixture(scope="module")
def finished(call, tiny, letters, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("replay") / "run"
    frozen = [["vit/embeddings/.*", "frozen"], [".*", "all"]]
    overrides = {**LETTERS, **REPLAY, "train.lwf.weight": 1.0}
    overrides |= {"model.pretrained": letters, "partition.rules": frozen}
    argv = [f"--config.{name}={value}" for name, value in overrides.items()]
    result = call(finetune, tiny, f"--workdir={workdir}", *argv)
    assert result.status == 0, result.err
    return workdir, result.out


def test_what_is_added_is_said(finished):
    out = finished[1]
    assert "source task: letters (train 104, test 52 examples), by accuracy" in out
    assert "replay: 4 letters a step beside 8 of the task, weight 0.5" in out
    assert "the old head's answers to the new inputs are kept, weight 1" in out


def test_records_tell_the_parts_and_the_rest_of_the_run_is_as_ever(finished):
    lines = (finished[0] / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    names = {split: set() for split in ("train", "validation", "source")}
    for record in records:
        names[record["split"]] |= set(record)
    assert {"replayed_loss", "replayed_accuracy", "accuracy"} <= names["train"]
    assert not {"replayed_loss"} & (names["validation"] | names["source"])
    summary = json.loads((finished[0] / "summary.json").read_text())
    assert summary["examples_seen"] == 4 * 8
    assert "old head" in summary["cache"]["why"]
    assert summary["forgetting"]["source"] == "letters"


def test_what_lies_between_it_and_its_base_is_scored_for_both_tasks(
    call, finished, tmp_path
):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    result = call(interpolate, f"--workdir={workdir}", "--alphas=0,1")
    assert result.status == 0, result.err
    written = json.loads((workdir / "wise_ft" / "results.json").read_text())
    found = json.loads((workdir / "summary.json").read_text())["forgetting"]
    scores = [point["source"][found["metric"]] for point in written["curve"]]
    assert scores == pytest.approx([found["before"], found["after"]])
    assert (workdir / "wise_ft" / "curve.png").exists()


def refused(call, tiny, letters, workdir, **overrides):
    changes = LETTERS | REPLAY | {k.replace("__", "."): v for k, v in overrides.items()}
    argv = [f"--config.{name}={value}" for name, value in changes.items()]
    result = call(
        finetune,
        tiny,
        f"--config.model.pretrained={letters}",
        f"--workdir={workdir}",
        *argv,
    )
    assert result.status == 2
    assert not (workdir / "checkpoints").exists()
    return result.err


def test_too_few_to_replay_are_refused(call, tiny, letters, tmp_path):
    error = refused(call, tiny, letters, tmp_path / "run", train__replay__share=0.95)
    assert "a step replays 152 examples" in error
    assert "has only 104" in error


def test_activations_cannot_be_kept_beside(call, tiny, letters, tmp_path):
    rules = [["vit/embeddings/.*", "frozen"], [".*", "all"]]
    more = {"train__cache__use": "on", "partition__rules": rules}
    error = refused(call, tiny, letters, tmp_path / "run", **more)
    assert "the old head reads whole examples in each step" in error


@pytest.mark.parametrize(
    ("share", "count"), [(1 / 3, 4), (0.5, 8), (0.1, 4), (0.75, 24)]
)
def test_the_share_is_of_all_examples_as_nearly_as_devices_allow(job, share, count):
    config, section = job.config, job.config.train
    replay = dataclasses.replace(section.replay, share=share)
    section = dataclasses.replace(section, replay=replay)
    config = dataclasses.replace(config, train=section)
    assert two_heads.num_replayed(config, multiple=4) == count


def test_a_quantised_body_is_not_held_a_second_time(make_job):
    job = make_job({"model.quantize": "int8", "adapter.method": "lora"})
    assert set(job.source.old.head) == {"classifier/kernel", "classifier/bias"}
    whole = job.source.old.params(job.model.params)
    assert whole["vit"] == job.model.params["vit"]


def test_a_head_that_stays_answers_both_tasks(make_job, tmp_path):
    """A language model: nothing is set aside, and its words are scored for both."""
    model = jft.init_model(
        BERT,
        key=jax.random.key(1),
        task="masked_lm",
        processor=make_tokenizer(model_max_length=64),
    )
    jft.save(tmp_path / "model", model)
    lines = [f"{'a film good bad'[i % 12 :]} plot a cast" for i in range(48)]
    (tmp_path / "texts.csv").write_text("text\n" + "\n".join(lines) + "\n")
    files = {"path": str(tmp_path / "texts.csv"), "split_per_class": False}
    sizes = {"train": 0.5, "validation": 0.25, "test": 0.25}
    job = make_job(
        {f"{section}.{key}": x for key, x in files.items() for section in SECTIONS}
        | REPLAY
        | {
            "model.pretrained": str(tmp_path / "model"),
            "partition.rules": [[".*", "all"]],
            "data.task": "masked_lm",
            "data.source": "csv",
            "data.max_length": 16,
            "data.split_sizes": sizes,
            "source.name": "csv",
            "source.options": {},
            "source.split_sizes": {"train": 0.5, "test": 0.5},
        }
    )
    assert job.source.old.head == {}
    assert job.asks(frozenset({2}))  # its layer, which learns from both
    assert job.source.metric in {"loss", *job.source.task.metrics}
    step_fn = training.make_train_step(job, state_shardings=None)
    batch = job.loader.largest()
    _, metrics = step_fn(training.init_state(job), batch)
    assert metrics["replayed_loss"] == pytest.approx(np.log(15), rel=0.1)
    assert metrics["loss"] == pytest.approx(1.5 * np.log(15), rel=0.1)


# --- a probe of the new head ----------------------------------------------------------
HEAD, PROBE = 2, 2  # its layer in the small model, and steps
LP_FT = {
    "optim.unfreeze.method": "lp_ft",
    "optim.unfreeze.probe_steps": PROBE,
    "optim.warmup_steps": 0,
    "train.log_every_steps": 1,
    "train.lwf.weight": 2.0,
}
ALONE, ALL = frozenset({HEAD}), frozenset({0, 1, HEAD})


def test_a_head_that_moves_alone_learns_the_same_without_the_old_one(make_job):
    """Bit for bit nothing of the body moves, so the old head says what it said."""
    job = make_job(REPLAY | LP_FT)
    assert [job.asks(groups) for groups in (ALONE, ALL, None)] == [False, True, True]
    step_fn = training.make_train_step(job, state_shardings=None)
    asking = training.make_train_step(
        job._replace(asks=lambda groups: True), state_shardings=None
    )
    place = two_heads.add_old_answers(job.config, job.old, jax.device_put)
    seen = []
    for step, loader, placed in (
        (step_fn, job.task_loader, jax.device_put),
        (asking, job.loader, place),
    ):
        state, stream = training.init_state(job), loader.batches()
        for _ in range(PROBE):
            state, metrics = step(state, placed(next(stream)), open_groups=ALONE)
        seen.append((state.params["classifier"], metrics))
    (head, metrics), (other, more) = seen
    assert set(more) - set(metrics) == {"replayed_loss", "replayed_accuracy"}
    for name in ("kernel", "bias"):
        np.testing.assert_allclose(head[name], other[name], rtol=1e-4, atol=1e-6)
        assert not np.allclose(head[name], job.model.params["classifier"][name])
    state = training.init_state(job)
    flops = [
        step.compile(state, batch, open_groups=ALONE).flops
        for step, batch in (
            (step_fn, job.task_loader.largest()),
            (asking, place(job.loader.largest())),
        )
    ]
    assert flops[0] < 0.75 * flops[1], flops


@pytest.fixture(scope="module")
def probe(call, tiny, letters, tmp_path_factory):
    """A function: the summary, the records and the words of a run of LP-FT."""

    def make(**more):
        workdir = tmp_path_factory.mktemp("probe") / "run"
        changes = LETTERS | REPLAY | LP_FT | {"model.pretrained": letters}
        changes |= {name.replace("__", "."): value for name, value in more.items()}
        argv = [f"--config.{name}={value}" for name, value in changes.items()]
        result = call(finetune, tiny, f"--workdir={workdir}", *argv)
        assert result.status == 0, result.err
        lines = (workdir / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        train_records = [r for r in records if r["split"] == "train"]
        summary = json.loads((workdir / "summary.json").read_text())
        return summary, train_records, result.out

    return make


def test_a_run_asks_the_old_head_from_where_the_body_moves(probe, monkeypatch):
    read = []
    switch, switch_back = feed.Stream.switch, feed.Stream.switch_back

    def see(self, loader, place):
        read.append(train.REPLAYED in loader.settings)
        switch(self, loader, place)

    def see_back(self):
        read.append("its own")
        switch_back(self)

    monkeypatch.setattr(feed.Stream, "switch", see)
    monkeypatch.setattr(feed.Stream, "switch_back", see_back)
    whole = {"data__global_batch_size": 40}  # each step is an epoch
    summary, records, out = probe(train__cache__use="off", **whole)
    assert "from step 0 to 2 nothing moves that the old head reads" in out
    has = ["replayed_loss" in record for record in records]
    assert has == [False] * PROBE + [True] * (4 - PROBE)
    assert read == [False, "its own"]
    first, second = (phase["step_flops"] for phase in summary["phases"])
    assert first < 0.5 * second

    cached, same, _ = probe(train__cache__use="on", **whole)
    assert cached["cache"]["rows_read"] == PROBE * 40
    assert read == [False, "its own"] * 2
    for one, two in zip(records, same, strict=True):
        assert one.keys() == two.keys()
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-4)


def test_an_old_head_that_reads_nothing_that_moves_is_refused(
    call, tiny, letters, tmp_path
):
    rules = [["classifier/.*", "head"], [".*", "frozen"]]
    error = refused(call, tiny, letters, tmp_path / "run", partition__rules=rules)
    assert "train.replay.share is set, but the old head reads nothing" in error


# --- how its examples are prepared ----------------------------------------------------
@pytest.mark.parametrize("augment", [None, "small_affine"])
def test_what_is_done_with_the_tasks_images_is_not_with_the_replayed(make_job, augment):
    own = {"data.augment": "small_affine", "source.augment": augment}
    job = make_job(REPLAY | own)
    part = job.loader.largest()[train.REPLAYED]
    fields_fn = feed.make_fields(job.source.config.data, job.source.old.model)
    learned = job.source.splits["train"]
    plain = np.stack(
        [fields_fn(learned[i])["pixel_values"] for i in range(len(learned))]
    )
    same = [(plain == image).all((1, 2, 3)).any() for image in part["pixel_values"]]
    assert all(same) if augment is None else not any(same)
