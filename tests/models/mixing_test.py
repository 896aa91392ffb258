# SPDX-License-Identifier: Apache-2.0
"""The hand-written derivative of attention is that of its forward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jft.models.dropout import drop, random_words
from jft.models.mixing import mix_values


def plainly(scores, value, words, rate):
    probs = jax.nn.softmax(scores)
    if words is not None:
        probs = drop(probs, words, rate=rate)
    return probs.astype(value.dtype) @ value


def draw(dtype):
    keys = jax.random.split(jax.random.key(0), 3)
    scores = 3 * jax.random.normal(keys[0], (2, 3, 5, 7), jnp.float64)
    scores = scores.at[0, :, :, 4:].set(float(np.finfo(np.float32).min))  # padding
    value = jax.random.normal(keys[1], (2, 3, 7, 4), jnp.float64)
    grad = jax.random.normal(keys[2], (2, 3, 5, 4), jnp.float64)
    wide = jnp.float64 if dtype == jnp.float64 else jnp.float32
    return scores.astype(wide), value.astype(dtype), grad.astype(dtype)


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    ("dtype", "atol"), [("float64", 1e-12), ("float32", 1e-6), ("bfloat16", 0.02)]
)
def test_value_and_gradient(dtype, atol, rate):
    with jax.enable_x64(True):
        scores, value, grad = draw(jnp.dtype(dtype))
        words = random_words(jax.random.key(1)) if rate else None
        y, vjp = jax.vjp(lambda s, v: mix_values(s, v, words, rate), scores, value)
        expected, plain = jax.vjp(
            lambda s, v: plainly(s, v, words, rate), scores, value
        )
        assert y.dtype == value.dtype
        np.testing.assert_array_equal(y, expected)
        for ours, theirs in zip(vjp(grad), plain(grad), strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_allclose(
                ours.astype(float), theirs.astype(float), atol=atol
            )
        if rate < 1:
            assert float(jnp.abs(vjp(grad)[0][1]).min()) > 0


def test_what_is_kept_for_the_backward_pass():
    """One array of the size of the scores, whatever drops out."""
    scores, value = jnp.zeros((2, 3, 5, 7)), jnp.zeros((2, 3, 7, 4))
    words = random_words(jax.random.key(1))
    _, vjp = jax.vjp(lambda s, v: mix_values(s, v, words, 0.3), scores, value)
    sizes = [leaf.size for leaf in jax.tree.leaves(vjp)]
    assert sizes.count(scores.size) == 1
    assert max(sizes) == scores.size
