# SPDX-License-Identifier: Apache-2.0
"""EMA and SWA equal their formulas, and `eval_params` reads what they keep."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jft.optim import eval_params, make_optimizer, track_ema, track_swa
from jft.types import InputError

TRACKS = {"ema": track_ema(0.7), "swa": track_swa(0, 1)}


def test_ema_equals_the_hand_formula():
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
    found = eval_params(state, params)
    np.testing.assert_allclose(found["w"], expected, rtol=1e-6)
    assert found["hole"] is None


@pytest.mark.parametrize(
    ("start", "every", "points"),
    [(0, 1, range(1, 11)), (4, 1, range(5, 11)), (2, 3, (3, 6, 9)), (9, 5, (10,))],
)
def test_the_mean_of_swa_is_of_these_points(start, every, points):
    tx = track_swa(start, every)
    params = {"w": jnp.array([1.0, 2.0]), "hole": None}
    state = tx.init(params)
    rng = np.random.default_rng(0)
    path = {}
    for step in range(10):
        move = {"w": jnp.asarray(rng.normal(size=2), jnp.float32), "hole": None}
        updates, state = tx.update(move, state, params, step=jnp.array(step))
        assert updates is move
        params = optax.apply_updates(params, updates)
        path[step + 1] = np.asarray(params["w"])
        seen = [path[p] for p in points if p <= step + 1] or [path[step + 1]]
        found = eval_params(state, params)
        np.testing.assert_allclose(found["w"], np.mean(seen, axis=0), rtol=1e-5)
        assert found["hole"] is None
    assert int(state.num_points) == len(list(points))


def test_a_skipped_step_does_not_delay_swa_and_its_own_count_is_enough():
    params = {"w": jnp.zeros(1)}
    tx = track_swa(5, 1)
    _, state = tx.update(params, tx.init(params), params, step=jnp.array(5))
    assert int(state.num_points) == 1
    state = tx.init(params)
    for _ in range(6):
        _, state = tx.update(params, state, params)
    assert int(state.num_points) == 1


@pytest.mark.parametrize("name", TRACKS)
def test_a_leaf_without_updates_keeps_its_exact_value(name):
    tx = TRACKS[name]
    value = np.random.default_rng(0).normal(size=100).astype(np.float32)
    params = {"w": jnp.asarray(value)}
    state = tx.init(params)
    for _ in range(20):
        _, state = tx.update({"w": None}, state, params)
    np.testing.assert_array_equal(eval_params(state, params)["w"], value)


def test_half_precision_is_averaged_in_float32_and_read_in_its_own():
    tx = track_ema(0.9999)
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    state = tx.init(params)
    for _ in range(10):
        updates = {"w": jnp.full(3, 1.0, jnp.bfloat16)}
        _, state = tx.update(updates, state, params)
    np.testing.assert_allclose(state.average["w"], 1 + 1 - 0.9999**10, rtol=1e-5)
    assert eval_params(state, params)["w"].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"ema_decay": 0.5}, -0.25), ({"swa": (0, 1)}, -0.5)],  # of 1, 0 and -1; 0 and -1
)
def test_eval_params_read_it_within_any_chain_and_frozen_stay(options, expected):
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    tx = make_optimizer(
        {"a": "all", "b": "frozen"},
        optimizer=optax.identity(),
        learning_rate=1.0,
        **options,
    )
    state = tx.init(params)
    for _ in range(2):
        grads = jax.tree.map(jnp.ones_like, params)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    found = eval_params(state, params)
    np.testing.assert_allclose(found["a"], [expected] * 2)
    np.testing.assert_array_equal(found["b"], [1.0, 1.0])


def test_without_an_average_the_parameters_are_their_own():
    params = {"a": jnp.ones(2)}
    state = make_optimizer({"a": "all"}, learning_rate=1.0).init(params)
    assert eval_params(state, params) is params


@pytest.mark.parametrize(("start", "every"), [(-1, 1), (0, 0)])
def test_no_such_points_are_refused(start, every):
    with pytest.raises(InputError, match="expected a start of 0 or more"):
        track_swa(start, every)
