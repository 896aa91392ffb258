# SPDX-License-Identifier: Apache-2.0
"""The activations that a config.json may name in ``hidden_act``."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """``x Φ(x)``, as torch computes it; half precision is widened in between.

    By ``erf``, which XLA computes in a third of the time of the ``erfc`` of
    ``jax.nn.gelu``. For its backward pass the input alone is kept, where autodiff
    keeps three arrays of that size, the widest of a block. Hendrycks and Gimpel 2016,
    arXiv 1606.08415.
    """
    wide = _wide(x)
    return (wide * _normal_cdf(wide)).astype(x.dtype)


def _gelu_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return gelu(x), x


def _gelu_backward(x: jax.Array, grad: jax.Array) -> tuple[jax.Array]:
    wide = _wide(x)
    density = jnp.exp(-0.5 * jnp.square(wide)) * (2 * math.pi) ** -0.5
    slope = _normal_cdf(wide) + wide * density
    return ((_wide(grad) * slope).astype(x.dtype),)


gelu.defvjp(_gelu_forward, _gelu_backward)


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32) if x.dtype.itemsize < 4 else x


def _normal_cdf(x: jax.Array) -> jax.Array:
    return 0.5 * (1.0 + jax.lax.erf(x * 0.5**0.5))


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
