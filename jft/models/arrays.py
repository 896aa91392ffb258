# SPDX-License-Identifier: Apache-2.0
"""Dtypes and shapes of what modules compute with."""

import jax
import jax.numpy as jnp


def at_least_float32(x: jax.Array) -> jax.Array:
    """Widen half precision: means and small probabilities are lost in it."""
    return x.astype(jnp.float32) if x.dtype.itemsize < 4 else x


def along_last(vector: jax.Array, x: jax.Array) -> jax.Array:
    """Reshape ``vector [D]`` to be multiplied with ``x [..., D]``."""
    return vector.reshape((1,) * (x.ndim - 1) + (-1,))
