# SPDX-License-Identifier: Apache-2.0
"""Two heads on one body, and the losses that ask the old one."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jft.evals import put_head_back, set_head_aside
from jft.partition import label_params
from jft.tasks.classification import accuracy, make_loss
from jft.train import (
    REPLAYED,
    ask_about_replayed,
    ask_both_heads,
    init_state,
    lwf_loss,
    make_old_forward,
    make_train_step,
    on_new_head,
    on_replayed,
    replay_loss,
    with_replayed_prefix,
)
from jft.types import InputError

HEAD = "classifier/.*"
NEW, OLD, N = 3, 5, 6
IN, WIDTH = 64, 128
RNG = np.random.default_rng(0)
LOSS = make_loss()


class Model(NamedTuple):
    """A body of two layers with dropout between them, and a head."""

    params: Any
    num_layers: int = 1


def prefix(params, batch, *, stop, key=None):
    assert stop in (1, 2)
    hidden = jnp.tanh(batch["x"] @ params["body"]["below"])
    if key is not None:
        hidden = jnp.where(jax.random.bernoulli(key, 0.9, hidden.shape), hidden, 0.0)
    if stop == 2:
        hidden = jnp.tanh(hidden @ params["body"]["above"])
    return {**{k: x for k, x in batch.items() if k != "x"}, f"hidden_{stop}": hidden}


def forward(params, batch, *, key):
    """Of a batch that may have been run up to a boundary."""
    if "hidden_1" in batch:
        hidden = jnp.tanh(batch["hidden_1"] @ params["body"]["above"])
    elif "hidden_2" in batch:
        hidden = batch["hidden_2"]
    else:
        hidden = prefix(params, batch, stop=2, key=key)["hidden_2"]
    head = params["classifier"]
    return hidden @ head["kernel"] + head["bias"][None]


def draw(*shape, scale=0.2):
    return jnp.asarray(RNG.normal(size=shape) * scale, jnp.float32)


def make_model(num_classes):
    body = {"below": draw(IN, WIDTH), "above": draw(WIDTH, WIDTH)}
    head = {"kernel": draw(WIDTH, num_classes), "bias": draw(num_classes)}
    return Model({"body": body, "classifier": head})


def make_batch(num_classes, rows=N, real=N):
    return {
        "x": RNG.normal(size=(rows, IN)).astype(np.float32),
        "targets": RNG.integers(0, num_classes, rows, np.int32),
        "loss_mask": (np.arange(rows) < real).astype(np.float32),
    }


@pytest.fixture(scope="module")
def model():
    return make_model(NEW)


@pytest.fixture(scope="module")
def old():
    return make_model(OLD)


@pytest.fixture(scope="module")
def head(old):
    return set_head_aside(old.params, head=HEAD)


@pytest.fixture(scope="module")
def old_fn(old, head):
    return make_old_forward(forward, head)


def boundary_of(model):
    return {"body_fn": prefix, "boundary": model.num_layers + 1}


def step_of(model, apply_fn, loss_fn, **options):
    labels = label_params(model.params, ((r".*", "all"),))
    tx = optax.sgd(0.1)
    state = init_state(model.params, labels, tx=tx, key=jax.random.key(3))
    return make_train_step(apply_fn, loss_fn, tx, labels, **options), state


def log_softmax(x):
    x = np.asarray(x, np.float64)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


# --- one body -------------------------------------------------------------------------
@pytest.mark.parametrize("body_once", [True, False])
def test_both_heads_say_what_two_models_of_one_body_say(
    model, old, head, old_fn, body_once
):
    options = boundary_of(model) if body_once else {}
    ask = ask_both_heads(forward, old_fn, **options)
    batch, key = make_batch(NEW), jax.random.key(5)
    outputs = ask(model.params, batch, key=key)
    whole = put_head_back(model.params, head)
    expected = (
        forward(model.params, batch, key=key),
        forward(whole, batch, key=key),
    )
    assert outputs.old.shape == (N, OLD)
    for said, alone in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(said, alone, rtol=1e-4, atol=1e-5)


def test_a_step_with_two_heads_costs_about_one_body(model, old_fn):
    batch = make_batch(NEW)
    batch["old_logits"] = np.zeros((N, OLD), np.float32)
    ask = ask_both_heads(forward, old_fn, **boundary_of(model))
    plain, state = step_of(model, forward, LOSS)
    both, _ = step_of(model, ask, lwf_loss(LOSS, weight=1.0))
    flops = [step.compile(state, batch).flops for step in (plain, both)]
    assert flops[0] < flops[1] < 1.1 * flops[0], flops


def test_the_compiler_merges_two_equal_forwards(model, old_fn):
    """Where no stage is the body's: with one key, dropout included."""
    batch, key = make_batch(NEW), jax.random.key(5)
    apart = ask_both_heads(forward, old_fn)
    flops = [
        jax.jit(fn).lower(model.params, batch, key=key).compile().cost_analysis()
        for fn in (forward, apart)
    ]
    assert flops[1]["flops"] < 1.1 * flops[0]["flops"]


def test_the_old_head_stays_and_the_body_hears_of_it(model, head, old_fn):
    batch = make_batch(NEW)
    batch["old_logits"] = RNG.normal(size=(N, OLD)).astype(np.float32)
    ask = ask_both_heads(forward, old_fn, **boundary_of(model))
    before = {path: np.array(x) for path, x in head.items()}
    tuned = []
    for weight in (0.0, 1.0):
        step, state = step_of(model, ask, lwf_loss(LOSS, weight=weight))
        tuned.append(step(state, batch)[0].params)
    for path, x in head.items():
        np.testing.assert_array_equal(x, before[path])
    heads = [params["classifier"] for params in tuned]
    bodies = [params["body"]["below"] for params in tuned]
    np.testing.assert_allclose(heads[0]["bias"], heads[1]["bias"], rtol=1e-5)
    assert np.abs(bodies[0] - bodies[1]).max() > 1e-4


def test_nothing_set_aside_is_one_head_that_learns_from_both(model):
    ask = ask_both_heads(forward, make_old_forward(forward, {}))
    outputs = ask(model.params, make_batch(NEW), key=None)
    np.testing.assert_array_equal(outputs.new, outputs.old)


# --- learning without forgetting ------------------------------------------------------
def test_what_is_kept_is_the_papers_loss(model, old_fn):
    """Equations 2 to 4: the gradient is that of their softened cross-entropy."""
    batch = make_batch(NEW, real=4)
    batch["old_logits"] = RNG.normal(size=(N, OLD)).astype(np.float32)
    outputs = ask_both_heads(forward, old_fn)(model.params, batch, key=None)
    total, count = lwf_loss(LOSS, weight=3.0)(outputs, batch)
    assert count == 4

    def softened(logits):  # y^(1/T) / Σ y^(1/T)
        powers = np.exp(log_softmax(logits)) ** (1 / 2)
        return powers / powers.sum(-1, keepdims=True)

    then, now = softened(batch["old_logits"])[:4], softened(outputs.old)[:4]
    cross_entropy = -(then * np.log(now)).sum()
    entropy = -(then * np.log(then)).sum()
    new = -log_softmax(outputs.new)[np.arange(4), batch["targets"][:4]].sum()
    expected = new + 3.0 * (cross_entropy - entropy)
    np.testing.assert_allclose(total, expected, rtol=1e-5)

    def of_old(x):
        return lwf_loss(LOSS, weight=1.0)(outputs._replace(old=x), batch)[0]

    slope = np.zeros((N, OLD))
    slope[:4] = (now - then) / 2  # of that cross-entropy by the logits, T = 2
    np.testing.assert_allclose(jax.grad(of_old)(outputs.old), slope, atol=1e-6)


def test_before_the_first_step_nothing_is_forgotten(model, old, head, old_fn):
    batch = make_batch(NEW)
    whole = put_head_back(model.params, head)
    batch["old_logits"] = forward(whole, batch, key=None)
    outputs = ask_both_heads(forward, old_fn)(model.params, batch, key=None)
    total, _ = lwf_loss(LOSS, weight=9.0)(outputs, batch)
    np.testing.assert_allclose(total, LOSS(outputs.new, batch)[0], rtol=1e-6)


def test_old_answers_that_are_not_there_or_do_not_fit_are_named(model, old_fn):
    batch = make_batch(NEW)
    outputs = ask_both_heads(forward, old_fn)(model.params, batch, key=None)
    loss_fn = lwf_loss(LOSS, weight=1.0)
    with pytest.raises(InputError, match=r"old_logits of the batch are None"):
        loss_fn(outputs, batch)
    with pytest.raises(InputError, match=r"\(6, 3\), the old head says \(6, 5\)"):
        loss_fn(outputs, {**batch, "old_logits": jnp.zeros((N, NEW))})
    for options in ({"weight": -1.0}, {"weight": 1.0, "temperature": 0.0}):
        with pytest.raises(InputError, match="expected a weight"):
            lwf_loss(LOSS, **options)


# --- replay ---------------------------------------------------------------------------
def test_each_task_has_a_mean_of_its_own(model, old, head, old_fn):
    batch = {**make_batch(NEW, real=4), REPLAYED: make_batch(OLD, rows=8, real=7)}
    ask = ask_about_replayed(forward, old_fn)
    outputs = ask(model.params, batch, key=None)
    total, count = replay_loss(LOSS, LOSS, weight=0.7)(outputs, batch)

    def mean(logits, part, real):
        rows = np.arange(real)
        return -log_softmax(logits)[rows, part["targets"][:real]].mean()

    replayed = batch[REPLAYED]
    whole = put_head_back(model.params, head)
    expected = mean(forward(model.params, batch, key=None), batch, 4)
    expected += 0.7 * mean(forward(whole, replayed, key=None), replayed, 7)
    np.testing.assert_allclose(total / count, expected, rtol=1e-5)

    right = np.argmax(outputs.old, -1)[:7] == replayed["targets"][:7]
    metric = on_replayed(accuracy)(outputs, batch)
    np.testing.assert_allclose(metric[0] / metric[1], right.mean(), rtol=1e-6)
    new = on_new_head(accuracy)(outputs, batch)
    np.testing.assert_allclose(new[0], accuracy(outputs.new, batch)[0])


def test_a_step_is_one_on_the_sum_of_both_gradients(model, old, head, old_fn):
    batch = {**make_batch(NEW), REPLAYED: make_batch(OLD, rows=4)}
    ask = ask_about_replayed(forward, old_fn)
    loss_fn = replay_loss(LOSS, LOSS, weight=0.5)
    step, state = step_of(model, ask, loss_fn)
    key = jax.random.fold_in(jax.random.key(3), 0)
    other = jax.random.fold_in(key, 1)

    def mean(params, forward, part, key):
        total, count = LOSS(forward(params, part, key=key), part)
        return total / count

    def both(params):
        whole = put_head_back(params, head)
        new = mean(params, forward, batch, key)
        return new + 0.5 * mean(whole, forward, batch[REPLAYED], other)

    value, grads = jax.value_and_grad(both)(model.params)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, model.params, grads)
    state, metrics = step(state, batch)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    for one, two in zip(
        jax.tree.leaves(state.params), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-5)


def test_the_prefix_runs_below_both(model, old, old_fn):
    batch = {**make_batch(NEW), REPLAYED: make_batch(OLD, rows=4)}
    prefix_fn = with_replayed_prefix(prefix, prefix)
    ran = prefix_fn(model.params, batch, stop=1)
    assert "hidden_1" in ran
    assert "hidden_1" in ran[REPLAYED]
    ask = ask_about_replayed(forward, old_fn)
    for one, two in zip(
        ask(model.params, ran, key=None),
        ask(model.params, batch, key=None),
        strict=True,
    ):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


def test_replayed_examples_that_are_not_there_or_would_be_divided_are_named(
    model, old_fn
):
    ask = ask_about_replayed(forward, old_fn)
    loss_fn = replay_loss(LOSS, LOSS, weight=1.0)
    with pytest.raises(InputError, match=r"no 'replayed'.*join_loaders"):
        ask(model.params, make_batch(NEW), key=None)
    step, state = step_of(model, ask, loss_fn, grad_accum_steps=2)
    with pytest.raises(InputError, match=r"replayed examples.*grad_accum_steps is 2"):
        step(state, {**make_batch(NEW), REPLAYED: make_batch(OLD, rows=4)})
    with pytest.raises(InputError, match=r"weight -0\.5"):
        replay_loss(LOSS, LOSS, weight=-0.5)
