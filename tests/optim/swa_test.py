# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jft.optim import eval_params, make_optimizer, swa_params, track_swa
from jft.types import InputError


@pytest.mark.parametrize(
    ("start", "every", "points"),
    [(0, 1, range(1, 11)), (4, 1, range(5, 11)), (2, 3, (3, 6, 9)), (9, 5, (10,))],
)
def test_the_mean_is_of_these_points(start, every, points):
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
        found = swa_params(state, params)
        np.testing.assert_allclose(found["w"], np.mean(seen, axis=0), rtol=1e-5)
        assert found["hole"] is None
    assert int(state.num_points) == len(list(points))


def test_a_skipped_step_does_not_delay_it_and_its_own_count_is_enough():
    params = {"w": jnp.zeros(1)}
    tx = track_swa(5, 1)
    _, state = tx.update(params, tx.init(params), params, step=jnp.array(5))
    assert int(state.num_points) == 1
    state = tx.init(params)
    for _ in range(6):
        _, state = tx.update(params, state, params)
    assert int(state.num_points) == 1


def test_a_leaf_without_updates_keeps_its_exact_value():
    value = np.random.default_rng(0).normal(size=100).astype(np.float32)
    params = {"w": jnp.asarray(value)}
    tx = track_swa(0, 1)
    state = tx.init(params)
    for _ in range(20):
        _, state = tx.update({"w": None}, state, params)
    np.testing.assert_array_equal(swa_params(state, params)["w"], value)


def test_eval_params_read_it_in_any_chain_and_half_precision():
    params = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2)}
    tx = make_optimizer(
        {"a": "all", "b": "frozen"},
        optimizer=optax.identity(),
        learning_rate=1.0,
        swa=(0, 1),
    )
    state = tx.init(params)
    for _ in range(2):
        grads = jax.tree.map(jnp.ones_like, params)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    found = eval_params(state, params)  # of 0 and -1
    np.testing.assert_array_equal(found["a"].astype(jnp.float32), [-0.5, -0.5])
    assert found["a"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(found["b"], [1.0, 1.0])


def test_state_shares_no_buffer_with_the_parameters():
    params = {"w": jnp.ones(2)}
    state = track_swa(1, 1).init(params)
    jax.jit(lambda p, s: (p, s), donate_argnums=(0, 1))(params, state)


@pytest.mark.parametrize(("start", "every"), [(-1, 1), (0, 0)])
def test_no_such_points_are_refused(start, every):
    with pytest.raises(InputError, match="expected a start of 0 or more"):
        track_swa(start, every)
