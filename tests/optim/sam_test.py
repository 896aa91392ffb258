# SPDX-License-Identifier: Apache-2.0
"""SAM's two steps equal the paper's, and evaluation undoes the climb."""

import jax.numpy as jnp
import numpy as np
import optax

from jft.optim import eval_params, make_optimizer, sam


def test_two_steps_equal_the_papers_formula():
    rho, rate = 0.1, 0.5
    tx = sam(optax.sgd(rate), rho=rho)
    w = np.array([1.0, -2.0], np.float32)

    def grad(w):
        return 2 * w + w**3

    params = {"w": jnp.asarray(w), "hole": None}
    state = tx.init(params)
    for _ in range(2):
        for _ in range(2):
            grads = {"w": grad(params["w"]), "hole": None}
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        uphill = w + rho * grad(w) / np.linalg.norm(grad(w))
        w = w - rate * grad(uphill)
        np.testing.assert_allclose(params["w"], w, rtol=1e-5)


def test_evaluation_undoes_the_climb_and_the_schedule_counts_training_steps():
    tx = make_optimizer(
        {"w": "all"},
        optimizer="sam",
        hyperparams={"momentum": 0.0},
        learning_rate=lambda step: jnp.asarray(step, float),
    )
    params = {"w": jnp.array([3.0, 4.0])}
    grads = {"w": jnp.array([3.0, 4.0])}
    state = tx.init(params)
    seen = [params["w"]]
    for _ in range(4):
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        seen.append(eval_params(state, params)["w"])
    expected = [[3, 4], [3, 4], [0, 0], [0, 0], [-9, -12]]  # rates of steps 1 and 3
    np.testing.assert_allclose(seen, expected, atol=1e-5)
    first, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(first["w"], [0.05 * 0.6, 0.05 * 0.8], rtol=1e-6)


def test_no_gradient_is_no_climb():
    tx = sam(optax.sgd(1.0), rho=0.1)
    params = {"w": jnp.ones(2)}
    updates, _ = tx.update({"w": jnp.zeros(2)}, tx.init(params), params)
    np.testing.assert_array_equal(updates["w"], [0.0, 0.0])
