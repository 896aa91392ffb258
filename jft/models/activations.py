# SPDX-License-Identifier: Apache-2.0
"""The activations that a config.json may name in ``hidden_act``."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn


def gelu(x: jax.Array) -> jax.Array:
    """``x Φ(x)``, as torch computes it; half precision is widened in between.

    By ``erf``, which XLA computes in a third of the time of the ``erfc`` of
    ``jax.nn.gelu``. Hendrycks and Gimpel 2016, arXiv 1606.08415.
    """
    wide = x.astype(jnp.float32) if x.dtype.itemsize < 4 else x
    y = 0.5 * wide * (1.0 + jax.lax.erf(wide * 0.5**0.5))
    return y.astype(x.dtype)


# transformers' names; its "gelu" is the exact one, "gelu_new" and "gelu_fast" the tanh
# formula
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": gelu,
    "gelu_fast": nn.gelu,
    "gelu_new": nn.gelu,
    "gelu_pytorch_tanh": nn.gelu,
    "quick_gelu": lambda x: x * nn.sigmoid(jnp.asarray(1.702, x.dtype) * x),
    "relu": nn.relu,
    "silu": nn.silu,
    "swish": nn.silu,
    "tanh": jnp.tanh,
}
