# SPDX-License-Identifier: Apache-2.0
"""Gradients within the norm stay bit for bit; longer ones get its length."""

import jax
import numpy as np
import optax

from jft.optim.clip import clip_by_global_norm

GRADS = {"a": np.array([3.0, 0.0], np.float32), "b": np.array([[4.0]], np.float32)}


def clipped(max_norm):
    return clip_by_global_norm(max_norm).update(GRADS, optax.EmptyState())[0]


def test_gradients_within_the_norm_stay_as_they_are():
    for max_norm in (5.0, 50.0):
        for got, given in zip(
            jax.tree.leaves(clipped(max_norm)), jax.tree.leaves(GRADS), strict=True
        ):
            np.testing.assert_array_equal(got, given)


def test_longer_gradients_keep_their_direction_and_get_the_norm():
    got = clipped(1.0)
    np.testing.assert_allclose(got["a"], [0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(got["b"], [[0.8]], rtol=1e-6)
