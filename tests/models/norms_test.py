# SPDX-License-Identifier: Apache-2.0
"""The hand-written derivative of the layer norm is that of its forward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jft.models.norms import layer_norm

EPS = 1e-6


def plainly(x, scale, bias):
    wide = x.astype(jnp.float64 if x.dtype == jnp.float64 else jnp.float32)
    centred = wide - wide.mean(-1, keepdims=True)
    variance = jnp.square(centred).mean(-1, keepdims=True)
    y = centred / jnp.sqrt(variance + EPS) * scale.astype(wide.dtype)[None, None]
    if bias is not None:
        y = y + bias.astype(wide.dtype)[None, None]
    return y.astype(x.dtype)


def draw(dtype, *, use_bias):
    keys = jax.random.split(jax.random.key(0), 4)
    x = 2 + 3 * jax.random.normal(keys[0], (3, 5, 8), jnp.float64)
    scale = 1 + jax.random.normal(keys[1], (8,), jnp.float64)
    bias = jax.random.normal(keys[2], (8,), jnp.float64) if use_bias else None
    grad = jax.random.normal(keys[3], x.shape, jnp.float64)
    return jax.tree.map(lambda a: a.astype(dtype), (x, scale, bias, grad))


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize(
    ("dtype", "atol"), [("float64", 1e-12), ("float32", 1e-5), ("bfloat16", 0.1)]
)
def test_value_and_gradient(dtype, atol, use_bias):
    with jax.enable_x64(True):
        x, scale, bias, grad = draw(jnp.dtype(dtype), use_bias=use_bias)
        args = (x, scale) + ((bias,) if use_bias else ())

        def ours(x, scale, bias=None):
            return layer_norm(x, scale, bias, eps=EPS)

        def theirs(x, scale, bias=None):
            return plainly(x, scale, bias)

        y, vjp = jax.vjp(ours, *args)
        expected, plain = jax.vjp(theirs, *args)
        assert y.dtype == x.dtype
        np.testing.assert_allclose(y.astype(float), expected.astype(float), atol=atol)
        for got, wanted in zip(vjp(grad), plain(grad), strict=True):
            assert got.dtype == wanted.dtype
            np.testing.assert_allclose(
                got.astype(float), wanted.astype(float), atol=atol
            )


def test_what_is_kept_for_the_backward_pass():
    """The input, and of each row its mean and deviation."""
    x, scale, bias = jnp.ones((3, 5, 8)), jnp.ones(8), jnp.zeros(8)
    _, vjp = jax.vjp(lambda *a: layer_norm(*a, eps=EPS), x, scale, bias)
    sizes = sorted(leaf.size for leaf in jax.tree.leaves(vjp))
    assert sizes == [8, 8, 15, 15, 120]


def test_gradients_of_gradients():
    """A penalty on a gradient can be trained, as R-Drop's kin do."""
    with jax.enable_x64(True):
        x, scale, bias, _ = draw(jnp.dtype("float64"), use_bias=True)

        def penalty(f):
            def of(x):
                grads = jax.grad(lambda x: jnp.sin(f(x)).sum())(x)
                return jnp.square(grads).sum()

            return jax.grad(of)(x)

        got = penalty(lambda x: layer_norm(x, scale, bias, eps=EPS))
        np.testing.assert_allclose(
            got, penalty(lambda x: plainly(x, scale, bias)), rtol=1e-8
        )
