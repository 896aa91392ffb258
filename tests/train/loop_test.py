# SPDX-License-Identifier: Apache-2.0
"""Phases and hooks come when due, and a run that goes on equals an unbroken one."""

import itertools

import jax
import numpy as np
import pytest

from jft.checkpoint import state_arrays
from jft.checkpoint.arrays import to_host
from jft.evals import evaluate
from jft.optim import make_optimizer, top_down
from jft.partition import label_params
from jft.tasks.classification import accuracy, make_loss
from jft.train import (
    NonFiniteError,
    ProgressBar,
    TrainStep,
    best_record,
    evaluate_every,
    fit,
    groups_at,
    init_state,
    log_metrics,
    make_eval_step,
    make_mesh,
    make_train_step,
    phases,
    save_every,
    shard_batch,
    stop_early,
    stop_on_nonfinite,
)
from jft.types import Interrupted

NUM_STEPS = 12


@pytest.fixture
def run(tiny_vit):
    """A function that trains with hooks, from a fresh state or a given one."""
    open_at = top_down(tiny_vit.num_layers, every=3)
    labels = label_params(tiny_vit.params, [(".*", "all")])
    tx = make_optimizer(
        labels, learning_rate=1e-2, layer_index=tiny_vit.layer_index, open_at=open_at
    )
    step = make_train_step(
        tiny_vit.apply_fn,
        make_loss(),
        tx,
        labels,
        group_of=tiny_vit.layer_index,
        metric_fns={"accuracy": accuracy},
    )
    plan = phases(open_at, NUM_STEPS)

    def batches(start):
        return (tiny_vit.batch(8, seed=i) for i in itertools.count(start))

    def run(*hooks, state=None, **options):
        if state is None:
            key = jax.random.key(0)
            state = init_state(tiny_vit.params, labels, tx=tx, key=key)
        options = {
            "batches": batches,
            "num_steps": NUM_STEPS,
            "open_groups_at": groups_at(plan),
            **options,
        }
        return fit(state, step, hooks=hooks, **options)

    return run


def test_phases_are_run_and_reported(run):
    result = run()
    assert result.stopped == "finished"
    assert int(result.state.step) == NUM_STEPS
    assert [(p.start, p.stop) for p in result.phases] == [
        (0, 3),
        (3, 6),
        (6, 9),
        (9, 12),
    ]
    counts = [p.trainable_params for p in result.phases]
    flops = [p.step_flops for p in result.phases]
    assert counts == sorted(set(counts))
    assert flops == sorted(set(flops))
    total = sum(x.size for x in jax.tree.leaves(result.state.params))
    assert counts[-1] == total
    assert [p.num_programs for p in result.phases] == [1] * 4


def test_each_shape_of_batch_is_compiled_once_for_each_set_of_groups(
    run, tiny_vit, monkeypatch
):
    flops = {}  # by groups and rows
    compile_ = TrainStep.compile

    def record(self, state, batch, *, open_groups=None):
        program = compile_(self, state, batch, open_groups=open_groups)
        key = (open_groups, len(batch["targets"]))
        assert key not in flops  # nothing is compiled twice
        flops[key] = program.flops
        return program

    monkeypatch.setattr(TrainStep, "compile", record)
    low, high = frozenset({2}), frozenset({3})
    result = run(
        batches=lambda start: (
            tiny_vit.batch(8 if i % 2 else 4, seed=i) for i in itertools.count(start)
        ),
        open_groups_at=lambda step, history: low if step // 3 % 2 else high,
    )
    assert set(flops) == {(low, 4), (low, 8), (high, 4), (high, 8)}
    assert flops[high, 4] < flops[high, 8] < flops[low, 8]
    assert [p.num_programs for p in result.phases] == [2] * 4
    assert [p.compile_seconds > 0 for p in result.phases] == [True, True, False, False]
    # phases of three steps: of 4, 8, 4 rows and of 8, 4, 8 in turn
    means = [(2 * flops[high, 4] + flops[high, 8]) / 3]
    means += [(flops[low, 4] + 2 * flops[low, 8]) / 3]
    assert [p.step_flops for p in result.phases] == pytest.approx(2 * means)


def test_hooks_log_evaluate_and_save_when_due(run):
    saved = []
    result = run(
        log_metrics(4),
        evaluate_every(5, lambda moment: {"score": float(moment.step)}),
        save_every(6, lambda moment: saved.append(moment.step)),
    )
    steps = {
        split: [r["step"] for r in result.history if r["split"] == split]
        for split in ("train", "validation")
    }
    assert steps == {"train": [4, 8, 12], "validation": [5, 10, 12]}
    assert saved == [6, 12]
    assert {"loss", "accuracy", "grad_norm"} <= result.history[0].keys()


def test_interrupted_evaluation_is_made_up_for(run):
    """Stopped inside the evaluation of step 5, the next run begins with it."""

    def stop(moment):
        raise Interrupted

    first = run(log_metrics(1), evaluate_every(5, stop))
    assert first.stopped == "interrupted"
    assert int(first.state.step) == 5
    log, score = log_metrics(1), lambda moment: {"score": 1.0}
    second = run(
        log,
        evaluate_every(5, score),
        state=first.state,
        history=first.history,
    )
    unbroken = run(log, evaluate_every(5, score))
    assert second.history == unbroken.history


def test_stop_is_polled_between_steps(run):
    asked = iter([False, False, False, True])
    result = run(stop_requested=lambda: next(asked))
    assert result.stopped == "interrupted"
    assert int(result.state.step) == 3


def test_continuing_equals_an_unbroken_run(run):
    hooks = (log_metrics(1),)
    unbroken = run(*hooks)
    asked = iter([False] * 5 + [True])
    first = run(*hooks, stop_requested=lambda: next(asked))
    second = run(*hooks, state=first.state, history=first.history)
    assert second.history == unbroken.history
    a, b = jax.tree.leaves(second.state), jax.tree.leaves(unbroken.state)
    for x, y in zip(a, b, strict=True):
        if not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(x, y)


def test_early_stopping_waits_for_the_last_opening(run):
    scores = iter([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    evaluate = evaluate_every(1, lambda moment: {"score": next(scores)})
    stop = stop_early("score", mode="max", patience=2, start_step=4)
    result = run(evaluate, stop)
    assert "no better validation score in 2 evaluations" in result.stopped
    assert int(result.state.step) == 6
    assert best_record(result.history, "score", mode="max")["step"] == 1


def test_best_ignores_what_is_not_finite():
    records = [
        {"step": i, "split": "validation", "loss": v}
        for i, v in enumerate([float("nan"), 2.0, 1.0, float("-inf")])
    ]
    assert best_record(records, "loss", mode="min")["step"] == 2
    assert best_record(records[:1], "loss", mode="min") is None


@pytest.mark.parametrize("limit", [1, 2])
def test_training_aborts_after_steps_that_are_not_finite(run, tiny_vit, limit):
    def batches(start):
        for i in itertools.count(start):
            batch = tiny_vit.batch(8, seed=i)
            if i >= 4:
                batch["pixel_values"] = batch["pixel_values"] * np.float32(np.nan)
            yield batch

    hook = stop_on_nonfinite(limit, lambda: "checkpoints/3")
    with pytest.raises(NonFiniteError, match=rf"step {4 + limit}.*checkpoints/3"):
        run(hook, batches=batches)


def test_the_loop_moves_only_what_it_asks_for(run, tiny_vit, no_implicit_transfer):
    """With the hooks of the scripts, on batches that are placed."""
    mesh = make_mesh(devices=jax.devices()[:1])
    eval_step = make_eval_step(tiny_vit.apply_fn, make_loss())
    rows = {**tiny_vit.batch(8), "index": np.arange(8)}
    saved = []

    def placed(start):
        for i in itertools.count(start):
            yield shard_batch(tiny_vit.batch(8, seed=i), mesh)

    def score(moment):
        whole = [shard_batch(rows, mesh)]
        return {"loss": evaluate(eval_step, moment.state.params, whole).loss}

    hooks = (
        log_metrics(1),
        evaluate_every(2, score),
        save_every(4, lambda m: saved.append(to_host(state_arrays(m.state)))),
        stop_early("loss", mode="min", patience=NUM_STEPS),
        stop_on_nonfinite(2, str),
        ProgressBar(examples_per_step=8, metric="accuracy", enabled=False),
    )
    states = [run(num_steps=0).state for _ in range(3)]
    with no_implicit_transfer():
        result = run(*hooks, state=states[0], batches=placed)
        assert result.stopped == "finished"
        assert len(result.history) == NUM_STEPS * 3 / 2
        assert len(saved) == 3
        with pytest.raises(Exception, match="Disallowed host-to-device"):
            run(state=states[1])  # nobody has placed the batches
        with pytest.raises(AssertionError, match="without jax"):
            run(
                lambda moment: moment.metrics and str(float(moment.metrics["loss"])),
                state=states[2],
                batches=placed,
            )
