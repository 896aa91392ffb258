# SPDX-License-Identifier: Apache-2.0
"""Mixout's weights are the paper's, and a step takes its gradient at them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jft.optim import make_optimizer
from jft.train import init_state, make_train_step, mixout
from jft.types import InputError

P = 0.3


def draw(seed, **shapes):
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in shapes.items()}


def test_each_weight_is_the_old_one_or_the_papers_other_value():
    old, new = draw(0, w=(40, 50)), draw(1, w=(40, 50))
    mixed = mixout(new, old, probability=P, key=jax.random.key(0))["w"]
    was_old = np.isclose(mixed, old["w"], atol=1e-6)
    m = was_old.astype(float)
    expected = (m * old["w"] + (1 - m) * new["w"] - P * old["w"]) / (1 - P)
    np.testing.assert_allclose(mixed, expected, atol=1e-5)
    assert np.mean(was_old) == pytest.approx(P, abs=0.04)


def test_the_expectation_is_the_weight_itself():
    old, new = draw(0, w=3), draw(1, w=3)
    keys = jax.random.split(jax.random.key(0), 20_000)
    mixed = jax.vmap(lambda key: mixout(new, old, probability=P, key=key)["w"])(keys)
    np.testing.assert_allclose(jnp.mean(mixed, axis=0), new["w"], atol=0.03)


def test_only_anchored_leaves_are_mixed_and_their_draws_are_their_own():
    old, new = draw(0, a=100, b=100), draw(1, a=100, b=100, head=100)
    mixed = mixout(new, old, probability=P, key=jax.random.key(0))
    np.testing.assert_array_equal(mixed["head"], new["head"])
    chosen = {k: np.isclose(mixed[k], old[k], atol=1e-6) for k in old}
    assert np.any(chosen["a"] != chosen["b"])
    alone = mixout(new | {"a": None}, old, probability=P, key=jax.random.key(0))
    np.testing.assert_array_equal(alone["b"], mixed["b"])
    other = mixout(new, old, probability=P, key=jax.random.key(1))
    assert np.any(other["b"] != mixed["b"])


def test_what_has_not_moved_stays_exactly_and_probability_0_is_nothing():
    old, new = draw(0, w=100), draw(1, w=100)
    same = mixout(old, old, probability=P, key=jax.random.key(0))
    np.testing.assert_array_equal(same["w"], old["w"])
    none = mixout(new, old, probability=0.0, key=jax.random.key(0))
    np.testing.assert_array_equal(none["w"], new["w"])


@pytest.mark.parametrize("probability", [-0.1, 1.0])
def test_other_probabilities_are_refused(probability):
    params = draw(0, w=2)
    with pytest.raises(InputError, match=r"expected a number in \[0, 1\)"):
        mixout(params, params, probability=probability, key=jax.random.key(0))


# --- in a step ------------------------------------------------------------------------
LABELS = {"low": "all", "high": "all", "ice": "frozen"}
LAYERS = {"low": 0, "high": 1, "ice": 0}
BATCH = {"x": np.random.default_rng(5).normal(size=(8, 6)).astype(np.float32)}


def apply_fn(params, batch, *, key):
    return batch["x"] @ (params["low"] * params["ice"]) + batch["x"] @ params["high"]


def loss_fn(outputs, batch):
    return jnp.sum(jnp.square(outputs - 1.0)), jnp.asarray(len(outputs), jnp.float32)


@functools.cache
def trained(
    *, open_at=None, compiled=False, accum=1, probability=P, steps=5, l2_sp=0.0
):
    """The parameters after some steps, and the step function."""
    tx = make_optimizer(
        LABELS,
        optimizer=optax.identity(),
        learning_rate=0.05,
        layer_index=LAYERS.__getitem__,
        keep_anchor=probability > 0,
        l2_sp=l2_sp,
        open_at=None if open_at is None else dict(open_at),
    )
    step = make_train_step(
        apply_fn, loss_fn, tx, LABELS,
        group_of=LAYERS.__getitem__, grad_accum_steps=accum, mixout=probability,
    )  # fmt: skip
    params = draw(0, low=6, high=6, ice=6)
    state = init_state(params, LABELS, tx=tx, key=jax.random.key(3))
    for number in range(steps):
        groups = None
        if compiled:
            groups = frozenset(g for g, at in open_at if at <= number)
        state, _ = step(state, BATCH, open_groups=groups)
    return state.params, step


def test_a_step_takes_the_gradient_at_the_mixed_weights():
    start = draw(0, low=6, high=6, ice=6)
    one, _ = trained(steps=1)
    plain, _ = trained(steps=1, probability=0.0)
    shares = []
    for name in ("low", "high"):  # nothing to mix yet, but the gradient is the mixed
        share = (one[name] - start[name]) / (plain[name] - start[name])
        shares += np.round(share * (1 - P), 3).tolist()
    assert set(shares) == {0.0, 1.0}
    two, step = trained(steps=2)
    x, ice = np.asarray(BATCH["x"], float), np.asarray(start["ice"], float)
    moved = {k: np.asarray(one[k] - start[k]) / (1 - P) for k in ("low", "high")}
    grads = {k: np.asarray(one[k] - two[k]) / 0.05 for k in ("low", "high")}
    found = 0
    for bits in range(2**12):  # some mask explains both gradients
        m = np.array([(bits >> i) & 1 for i in range(12)], float)
        low = start["low"] + (1 - m[:6]) * moved["low"]
        high = start["high"] + (1 - m[6:]) * moved["high"]
        residual = 2 * (x @ (low * ice) + x @ high - 1.0) / 8
        expected = {"low": ice * (x.T @ residual), "high": x.T @ residual}
        factor = {"low": (1 - m[:6]) / (1 - P), "high": (1 - m[6:]) / (1 - P)}
        found += all(
            np.allclose(grads[k], expected[k] * factor[k], atol=2e-4) for k in grads
        )
    assert found == 1
    assert step.jitted._cache_size() == 1  # nor does a draw compile anew


def test_parts_of_a_batch_give_what_the_whole_gives():
    whole, parts = trained()[0], trained(accum=4)[0]
    for name in whole:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-5, atol=1e-6)


def test_phases_equal_the_gated_run():
    open_at = ((1, 0), (0, 2))
    gated = trained(open_at=open_at)[0]
    phased = trained(open_at=open_at, compiled=True)[0]
    for name in gated:
        np.testing.assert_allclose(phased[name], gated[name], rtol=1e-5, atol=1e-6)


def test_the_start_that_each_group_keeps_for_l2_sp_is_mixed():
    open_at = ((1, 0), (0, 2))
    expected = trained(open_at=open_at)[0]
    shared = trained(open_at=open_at, l2_sp=1e-12)[0]  # a pull of next to nothing
    for name in expected:
        np.testing.assert_allclose(shared[name], expected[name], rtol=1e-5, atol=1e-6)


def test_without_a_start_to_return_to_it_is_refused():
    tx = make_optimizer(LABELS, learning_rate=0.1)
    step = make_train_step(apply_fn, loss_fn, tx, LABELS, mixout=P)
    params = draw(0, low=6, high=6, ice=6)
    state = init_state(params, LABELS, tx=tx, key=jax.random.key(3))
    with pytest.raises(InputError, match="keeps no starting point"):
        step(state, BATCH)
