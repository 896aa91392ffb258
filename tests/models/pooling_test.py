# SPDX-License-Identifier: Apache-2.0
"""A mean counts tokens alone; vectors of length one have a derivative at zero."""

import jax
import jax.numpy as jnp
import numpy as np

from jft.models.pooling import mean_pool, to_unit_length

RNG = np.random.default_rng(0)
HIDDEN = RNG.normal(size=(3, 5, 4)).astype(np.float32)
MASK = np.array([[1, 1, 1, 1, 1], [0, 0, 1, 1, 0], [0, 0, 0, 0, 0]], np.int32)


def test_mean_counts_tokens_alone():
    expected = np.stack([HIDDEN[0].mean(0), HIDDEN[1, 2:4].mean(0), np.zeros(4)])
    np.testing.assert_allclose(mean_pool(HIDDEN, MASK), expected, atol=1e-6)
    other = np.where(MASK[..., None] > 0, HIDDEN, 1e6).astype(np.float32)
    np.testing.assert_array_equal(mean_pool(other, MASK), mean_pool(HIDDEN, MASK))


def test_half_precision_stays_and_counts_to_a_thousand():
    hidden = jnp.ones((1, 1000, 2), jnp.bfloat16)
    pooled = mean_pool(hidden, np.ones((1, 1000), np.int32))
    assert pooled.dtype == to_unit_length(pooled).dtype == jnp.bfloat16
    np.testing.assert_array_equal(pooled.astype(jnp.float32), np.ones((1, 2)))


def test_vectors_have_length_one_and_a_derivative_at_zero():
    vectors = np.concatenate([RNG.normal(size=(3, 4)), np.zeros((1, 4))])
    vectors = (vectors * np.array([[1e-8], [1.0], [1e8], [1.0]])).astype(np.float32)
    lengths = np.linalg.norm(to_unit_length(vectors), axis=-1)
    np.testing.assert_allclose(lengths, [1, 1, 1, 0], atol=1e-6)
    grads = jax.grad(lambda x: to_unit_length(x).sum())(jnp.asarray(vectors))
    assert bool(jnp.isfinite(grads).all())
