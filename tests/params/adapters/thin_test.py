# SPDX-License-Identifier: Apache-2.0
"""The thin product is a product, forward and backward, whatever the batch's shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jft.params.adapters.thin import thin_product


@pytest.mark.parametrize("shape", [(6,), (6, 3), (6, 3, 2)])
@pytest.mark.parametrize(("num_in", "num_out"), [(16, 2), (2, 16)])
def test_gradients_are_those_of_the_product(shape, num_in, num_out):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(*shape, num_in)).astype(np.float32)
    factor = rng.normal(size=(num_in, num_out)).astype(np.float32)
    dy = rng.normal(size=(*shape, num_out)).astype(np.float32)
    y, pull_back = jax.vjp(thin_product, jnp.asarray(x), jnp.asarray(factor))
    np.testing.assert_allclose(y, x @ factor, rtol=1e-5, atol=1e-5)
    dx, d_factor = pull_back(jnp.asarray(dy))
    np.testing.assert_allclose(dx, dy @ factor.T, rtol=1e-5, atol=1e-5)
    rows = x.reshape(-1, num_in).T @ dy.reshape(-1, num_out)
    np.testing.assert_allclose(d_factor, rows, rtol=1e-5, atol=1e-5)


def test_examples_are_summed_after_their_products():
    """One product over all rows is slow where its result is thin."""
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((4, 8, 16), (16, 2))]

    def loss(x, factor):
        return (thin_product(x, factor) ** 2).sum()

    text = str(jax.make_jaxpr(jax.grad(loss, argnums=1))(*shapes))
    assert "f32[4,2,16]" in text  # examples x thin x long
