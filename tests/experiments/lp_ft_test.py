# SPDX-License-Identifier: Apache-2.0
"""A linear probe, then fine-tuning: one run of two phases."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest

from experiments import build, finetune, run_config, training
from experiments.optimizer import make_optimizer
from experiments.plan import make_plan
from jft import paths, train
from jft.config import apply_overrides, load_config_file, resolve
from jft.types import InputError

PROBE, STEPS = 3, 8
HEAD, PEAK, SECOND = 2, 0.01, 0.002  # the tiny model has the layers 0, 1 and 2
CHANGES = {
    "data.augment": None,
    "optim.learning_rate": PEAK,
    "optim.warmup_percent": 40,
    "optim.unfreeze.method": "lp_ft",
    "optim.unfreeze.probe_steps": PROBE,
    "optim.unfreeze.finetune_learning_rate": SECOND,
    "train.num_steps": STEPS,
    "evals.eval_every_steps": 4,
}


@pytest.fixture(scope="module")
def job(tiny, base):
    _, config = load_config_file(tiny.partition("=")[2])
    pretrained = {"model.pretrained": base.partition("=")[2]}
    overrides = {**CHANGES, **pretrained}
    return build.make_job(
        run_config.complete(resolve(apply_overrides(config, overrides)))
    )


@pytest.fixture(scope="module")
def run(call, tiny, base, tmp_path_factory):
    """A function that makes a run with some more overrides."""

    def make(**more):
        workdir = tmp_path_factory.mktemp("lp_ft") / "run"
        changes = CHANGES | {k.replace("__", "."): v for k, v in more.items()}
        argv = [f"--config.{name}={value}" for name, value in changes.items()]
        result = call(finetune, tiny, base, f"--workdir={workdir}", *argv)
        assert result.status == 0, result.err
        lines = (workdir / "metrics.jsonl").read_text().splitlines()
        losses = [json.loads(line)["loss"] for line in lines]
        return json.loads((workdir / "summary.json").read_text()), losses

    return make


def cosine(step, *, peak, num_steps):
    """Of a whole run, with a warm-up of 40 %."""
    warm = math.ceil(0.4 * num_steps)
    if step < warm:
        return peak * step / warm
    return peak * (1 + math.cos(math.pi * (step - warm) / (num_steps - warm))) / 2


def test_each_part_has_the_schedule_of_a_run_of_its_own(job):
    first = [cosine(t, peak=PEAK, num_steps=PROBE) for t in range(PROBE)]
    then = [cosine(t, peak=SECOND, num_steps=STEPS - PROBE) for t in range(6)]
    rates = [float(job.plan.schedule(step)) for step in range(STEPS + 1)]
    np.testing.assert_allclose(rates, first + then, rtol=1e-6, atol=1e-12)
    traced = jax.jit(job.plan.schedule)(PROBE + 2)
    np.testing.assert_allclose(traced, then[2], rtol=1e-6)


def test_the_body_stays_bit_for_bit_and_then_all_of_it_moves(job):
    expected = [train.Phase(0, PROBE, {HEAD}), train.Phase(PROBE, STEPS, {0, 1, 2})]
    assert job.plan.phases == expected
    # rates that are not 0 at the first step of a part
    plan = job.plan._replace(schedule=lambda step: PEAK)
    tx = make_optimizer(job.config, job.model, job.labels, plan)
    job = job._replace(plan=plan, tx=tx)
    state = training.init_state(job)
    step_fn = training.make_train_step(job, state_shardings=None)
    seen = [paths.flatten(jax.device_get(state.params))]
    stream = job.loader.batches()
    for step in range(PROBE + 1):
        groups = job.plan.open_groups_at(step, [])
        state, _ = step_fn(state, next(stream), open_groups=groups)
        seen.append(paths.flatten(jax.device_get(state.params)))
    stream.close()
    before, probed, after = seen[0], seen[PROBE], seen[PROBE + 1]
    for path in before:
        is_head = job.model.layer_index(path) == HEAD
        assert np.array_equal(before[path], probed[path]) is not is_head, path
        # of softmax, the bias of keys has no gradient but rounding's
        if not path.endswith("key/bias"):
            assert not np.array_equal(probed[path], after[path]), path


def test_gates_train_as_the_phases_do(run):
    summary, losses = run()
    assert [(p["start"], p["stop"]) for p in summary["phases"]] == [(0, 3), (3, 8)]
    gated, same = run(train__phases="gated", train__frozen_dropout=True)
    assert len(gated["phases"]) == 1
    np.testing.assert_allclose(same, losses, rtol=1e-5)


def test_the_probe_reads_activations(run):
    whole = {"data__global_batch_size": 40}  # each step is an epoch
    cached, losses = run(train__cache__use="on", **whole)
    assert cached["cache"]["rows_read"] == PROBE * 40
    _, plain = run(train__cache__use="off", **whole)
    np.testing.assert_allclose(losses, plain, rtol=1e-5)


def test_a_probe_as_long_as_the_run_is_refused(job):
    optim = job.config.optim
    whole = dataclasses.replace(optim.unfreeze.probe, amount=STEPS)
    unfreeze = dataclasses.replace(optim.unfreeze, probe=whole)
    config = dataclasses.replace(
        job.config, optim=dataclasses.replace(optim, unfreeze=unfreeze)
    )
    with pytest.raises(InputError, match=r"probe is 8 steps, 8 of the run's 8"):
        make_plan(config, job.model, job.labels, job.loader.steps_per_epoch)
