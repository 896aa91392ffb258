# SPDX-License-Identifier: Apache-2.0
"""R-Drop's loss is that by hand, and both draws are differentiated."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jft.partition import label_params
from jft.tasks.classification import accuracy, make_loss
from jft.train import init_state, make_r_drop, make_train_step, on_first_draw
from jft.types import InputError

LOSS = make_loss()
N, WIDTH, C = 6, 8, 5
RNG = np.random.default_rng(0)
PARAMS = {"kernel": np.asarray(RNG.normal(size=(WIDTH, C)), np.float32)}
BATCH = {
    "x": np.asarray(RNG.normal(size=(N, WIDTH)), np.float32),
    "targets": RNG.integers(0, C, N, np.int32),
    "loss_mask": np.array([1, 1, 1, 1, 0, 0], np.float32),
}
KEY = jax.random.key(1)


def apply_with(params, batch, *, key, rate):
    x = jnp.asarray(batch["x"])
    if key is not None and rate:
        kept = jax.random.bernoulli(key, 1 - rate, x.shape)
        x = jnp.where(kept, x / (1 - rate), 0.0)
    return x @ params["kernel"]


dropping = functools.partial(apply_with, rate=0.5)
certain = functools.partial(apply_with, rate=0.0)


def step_once(apply_fn, loss_fn, **options):
    labels = label_params(PARAMS, ((r".*", "all"),))
    tx = optax.sgd(0.1)
    state = init_state(PARAMS, labels, tx=tx, key=jax.random.key(3))
    return make_train_step(apply_fn, loss_fn, tx, labels, **options)(state, BATCH)


def log_softmax(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def by_hand(p, q, alpha):
    p, q = (log_softmax(np.asarray(x, np.float64)[:4]) for x in (p, q))
    targets = BATCH["targets"][:4]
    nll = -(p + q)[np.arange(4), targets].sum() / 2
    return nll + alpha * (np.exp(p) * (p - q) + np.exp(q) * (q - p)).sum() / 2


def test_the_loss_by_hand():
    apply_fn, loss_fn = make_r_drop(dropping, LOSS, alpha=3.0)
    outputs = apply_fn(PARAMS, BATCH, key=KEY)
    assert np.abs(outputs.first - outputs.second).max() > 0.1  # two draws
    total, weight = loss_fn(outputs, BATCH)
    assert weight == 4
    np.testing.assert_allclose(total, by_hand(*outputs, alpha=3.0), rtol=1e-5)


def test_both_draws_are_differentiated():
    apply_fn, loss_fn = make_r_drop(dropping, LOSS, alpha=2.0)
    direction = np.asarray(RNG.normal(size=(WIDTH, C)), np.float32)

    @jax.jit
    @jax.grad
    def slope(t):
        params = {"kernel": PARAMS["kernel"] + t * direction}
        return loss_fn(apply_fn(params, BATCH, key=KEY), BATCH)[0]

    def value(t):
        params = {"kernel": PARAMS["kernel"] + np.float32(t) * direction}
        return by_hand(*apply_fn(params, BATCH, key=KEY), alpha=2.0)

    finite = (value(1e-2) - value(-1e-2)) / 2e-2
    np.testing.assert_allclose(slope(0.0), finite, rtol=1e-2)


def test_without_a_key_there_is_one_draw_and_the_plain_loss():
    apply_fn, loss_fn = make_r_drop(dropping, LOSS, alpha=3.0)
    outputs = apply_fn(PARAMS, BATCH, key=None)
    plain = dropping(PARAMS, BATCH, key=None)
    np.testing.assert_array_equal(outputs, plain)
    np.testing.assert_array_equal(loss_fn(outputs, BATCH), LOSS(plain, BATCH))


@pytest.mark.parametrize("alpha", [0.0, 3.0])  # equal draws are 0 apart
def test_without_dropout_a_step_is_the_plain_step(alpha):
    plain = step_once(certain, LOSS)
    twice = step_once(*make_r_drop(certain, LOSS, alpha=alpha))
    for a, b in zip(
        jax.tree.leaves((plain[0].trainable, plain[1])),
        jax.tree.leaves((twice[0].trainable, twice[1])),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_metrics_of_a_step_look_at_one_draw():
    metric_fns = {"accuracy": on_first_draw(accuracy)}
    wrapped = make_r_drop(dropping, LOSS, alpha=1.0)
    _, metrics = step_once(*wrapped, metric_fns=metric_fns)
    assert float(metrics["accuracy"]) in (0.0, 0.25, 0.5, 0.75, 1.0)
    plain = dropping(PARAMS, BATCH, key=None)
    assert metric_fns["accuracy"](plain, BATCH) == accuracy(plain, BATCH)


def test_draws_are_not_driven_apart():
    with pytest.raises(InputError, match=r"alpha is -1"):
        make_r_drop(dropping, LOSS, alpha=-1.0)
