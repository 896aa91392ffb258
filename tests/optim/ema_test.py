# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jft.optim import ema_params, eval_params, make_optimizer, track_ema
from jft.types import InputError


def test_average_equals_the_hand_formula():
    tx = track_ema(0.9)
    params = {"w": jnp.array([1.0, 2.0]), "hole": None}
    state = tx.init(params)
    expected = np.array([1.0, 2.0])
    for step in range(5):
        move = {"w": jnp.array([0.5, -1.0]) * step, "hole": None}
        updates, state = tx.update(move, state, params)
        assert updates is move
        params = optax.apply_updates(params, updates)
        expected = 0.9 * expected + 0.1 * np.asarray(params["w"])
    found = ema_params(state, params)
    np.testing.assert_allclose(found["w"], expected, rtol=1e-6)
    assert found["hole"] is None


def test_a_leaf_without_updates_keeps_its_exact_value():
    tx = track_ema(0.7)
    value = np.random.default_rng(0).normal(size=100).astype(np.float32)
    params = {"w": jnp.asarray(value)}
    state = tx.init(params)
    for _ in range(20):
        _, state = tx.update({"w": None}, state, params)
    np.testing.assert_array_equal(state.ema["w"], value)


def test_half_precision_is_averaged_in_float32_and_read_in_its_own():
    tx = track_ema(0.9999)
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    state = tx.init(params)
    for _ in range(10):
        updates = {"w": jnp.full(3, 1.0, jnp.bfloat16)}
        _, state = tx.update(updates, state, params)
    np.testing.assert_allclose(state.ema["w"], 1 + 1 - 0.9999**10, rtol=1e-5)
    assert ema_params(state, params)["w"].dtype == jnp.bfloat16


def test_eval_params_are_the_average_within_any_chain_and_frozen_stay():
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    tx = make_optimizer(
        {"a": "all", "b": "frozen"}, optimizer="sgd", learning_rate=1.0, ema_decay=0.5
    )
    updates, state = tx.update(params, tx.init(params), params)
    found = eval_params(state, optax.apply_updates(params, updates))
    np.testing.assert_allclose(found["a"], [0.5, 0.5])  # halfway from 1 to 0
    np.testing.assert_array_equal(found["b"], [1.0, 1.0])


def test_without_an_average_the_parameters_are_their_own():
    params = {"a": jnp.ones(2)}
    state = make_optimizer({"a": "all"}, learning_rate=1.0).init(params)
    assert eval_params(state, params) is params
    with pytest.raises(InputError, match="no EMA; make the optimizer with ema_decay"):
        ema_params(state, params)


def test_schedule_free_evaluates_the_papers_average_on_one_clock():
    def rate(step):  # rises, so that a clock one step off shows
        return 0.1 + 0.05 * jnp.asarray(step, float)

    params = {"a": jnp.array([1.0, 2.0])}
    tx = make_optimizer({"a": "all"}, optimizer="schedule_free_sgd", learning_rate=rate)
    state = tx.init(params)
    fast = average = np.array([1.0, 2.0])
    weight = largest = 0.0
    for step in range(4):
        updates, state = tx.update(params, state, params)
        fast = fast - float(rate(step)) * np.asarray(params["a"])
        largest = max(largest, float(rate(step)))  # optax weighs by the largest so far
        weight += largest**2
        average = average + largest**2 / weight * (fast - average)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(eval_params(state, params)["a"], average, rtol=1e-5)


def test_state_shares_no_buffer_with_the_parameters():
    params = {"w": jnp.ones(2)}
    state = track_ema(0.9).init(params)
    jax.jit(lambda p, s: (p, s), donate_argnums=(0, 1))(params, state)
