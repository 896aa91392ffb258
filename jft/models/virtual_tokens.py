# SPDX-License-Identifier: Apache-2.0
"""What can stand before a text without being part of it, and how a forward knows.

Two fields of a batch, numbers of Python's and no arrays. ``num_before``: so many
positions are taken before the first token, by keys and values that `attend` is given
from outside; of two texts it is the decoder's. ``num_virtual``: so many of the first
``input_ids`` are no words, for which vectors are put in, so that a decoder's text that
is made of the encoder's leaves them out.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jft.models.masks import Mask


def num_before(batch: Mapping[str, Any]) -> int:
    """How many positions are taken before the first token."""
    return int(batch.get("num_before", 0))


def text_ids(batch: Mapping[str, Any]) -> jax.Array:
    """The ids that are words, ``[B, L]``."""
    ids = jnp.asarray(batch["input_ids"])
    return ids[:, int(batch.get("num_virtual", 0)) :]


class Seen(NamedTuple):
    """What the queries of an attention look at."""

    key: jax.Array  # [B, S, G, K]
    value: jax.Array  # [B, S, G, K]
    mask: Mask | None  # of S keys or more
    bias: jax.Array | None  # of the scores, [B or 1, H or 1, L, S or more]


class Sight(nn.Module):
    """What an attention's queries look at, as it is.

    It computes nothing: a module, so that linen lets others stand between it and the
    attention, and put more keys before the others.
    """

    cross: bool = False  # at another text than the queries'

    def __call__(self, seen: Seen) -> Seen:
        """Return it."""
        return seen


def put_before(seen: Seen, key: jax.Array, value: jax.Array) -> Seen:
    """Put keys and values ``[P, G, K]`` before the others.

    A mask without columns for them lets all queries see them, a bias without gets
    zeros.
    """
    count, (batch, num_keys) = key.shape[0], seen.key.shape[:2]

    def joined(first: jax.Array, rest: jax.Array) -> jax.Array:
        each = jnp.broadcast_to(first.astype(rest.dtype), (batch, *first.shape))
        return jnp.concatenate([each, rest], axis=1)

    def padded(x: jax.Array, fill: Any) -> jax.Array:
        return jnp.pad(x, [(0, 0)] * 3 + [(count, 0)], constant_values=fill)

    mask, bias = seen.mask, seen.bias
    if mask is not None and mask.allowed.shape[-1] == num_keys:
        mask = Mask(allowed=padded(mask.allowed, True))
    if bias is not None and bias.shape[-1] == num_keys:
        bias = padded(bias, 0)
    return Seen(joined(key, seen.key), joined(value, seen.value), mask, bias)
