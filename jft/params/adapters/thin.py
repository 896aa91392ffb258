# SPDX-License-Identifier: Apache-2.0
"""A product with a matrix that is long one way and thin the other."""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def thin_product(x: jax.Array, factor: jax.Array) -> jax.Array:
    """``x @ factor``, whose gradient of the factor is summed example by example.

    That gradient is a sum over all rows of a batch with a result of few columns, which
    a compiler for the CPU does at a third of the speed of one product an example.

    Args:
      x: ``[B, ..., in]``.
      factor: ``[in, out]``.

    Returns:
      ``[B, ..., out]``.
    """
    return x @ factor


def _forward(
    x: jax.Array, factor: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return x @ factor, (x, factor)


def _backward(
    kept: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, factor = kept
    dx = dy @ factor.T
    if x.ndim == 2:  # an example is one row
        return dx, x.T @ dy
    if factor.shape[0] < factor.shape[1]:
        return dx, jnp.einsum("b...i,b...o->bio", x, dy).sum(axis=0)
    return dx, jnp.einsum("b...i,b...o->boi", x, dy).sum(axis=0).T


thin_product.defvjp(_forward, _backward)
