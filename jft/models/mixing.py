# SPDX-License-Identifier: Apache-2.0
"""The softmax of attention, its dropout and the mix of values, with their derivative.

Written by hand, the derivative keeps one array of the size of the scores, the
probabilities, where autodiff keeps up to three, and takes the softmax's sum over keys
from the mix, which is as wide as a head and not as long as the text.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jft.models import dropout

Kept = tuple[jax.Array, jax.Array, jax.Array | None, jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def mix_values(
    scores: jax.Array, value: jax.Array, words: jax.Array | None, rate: float
) -> jax.Array:
    """Mix the values by the softmax of the scores, some of it dropped.

    Args:
      scores: ``[..., L, S]``, at least float32.
      value: ``[..., S, K]``; its dtype is that of the product and the result.
      words: as `jft.models.dropout.random_words` makes them; None drops nothing.
      rate: the share of the probabilities that is dropped.

    Returns:
      ``[..., L, K]``.
    """
    return _forward(scores, value, words, rate)[0]


def _forward(
    scores: jax.Array, value: jax.Array, words: jax.Array | None, rate: float
) -> tuple[jax.Array, Kept]:
    probs = nn.softmax(scores)
    mixed = _dropped(probs, words, rate).astype(value.dtype) @ value
    return mixed, (probs, value, words, mixed)


def _backward(rate: float, kept: Kept, grad: jax.Array) -> tuple[Any, ...]:
    # With P the probabilities, D the dropout, linear and diagonal, and O = D(P) V:
    # dV = D(P)' dO; dP = D(dO V'); dS = P * (dP - sum over keys of P * dP), and that
    # sum is the sum over the head's width of O * dO.
    probs, value, words, mixed = kept
    dropped = _dropped(probs, words, rate).astype(value.dtype)
    d_value = jnp.swapaxes(dropped, -1, -2) @ grad
    d_probs = (grad @ jnp.swapaxes(value, -1, -2)).astype(probs.dtype)
    d_probs = _dropped(d_probs, words, rate)
    products = mixed.astype(probs.dtype) * grad.astype(probs.dtype)
    d_scores = probs * (d_probs - products.sum(axis=-1, keepdims=True))
    return d_scores, d_value, None


def _dropped(x: jax.Array, words: jax.Array | None, rate: float) -> jax.Array:
    return x if words is None else dropout.drop(x, words, rate=rate)


mix_values.defvjp(_forward, _backward)
