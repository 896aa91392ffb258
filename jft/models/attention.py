# SPDX-License-Identifier: Apache-2.0
"""Attention of all families: who may look at whom, the product, and the cache.

A mask (`jft.models.masks`) says where query ``l`` may look at key ``s``. In packed rows
(`jft.models.packing`) that is never a key of another text.

Decoding: a batch with the field ``cache_mask [B, S]`` (1 where a slot of the cache
holds a token, those of this call included) and ``cache_index []`` (the slot of its
first token) makes self-attention write its keys and values into slots of the linen
collection ``cache`` and look at all of them. The first call, without the collection,
makes it. Vaswani et al. 2017, arXiv 1706.03762.

Decoding with an encoder: ``hidden = module.apply(variables, batch, stop=n + 1)``, of a
batch with ``input_ids`` and ``attention_mask`` and n encoder blocks, gives the finished
encoder, ``hidden["encoder"] [B, L, D]``. A decoding call is a call from stage 0 whose
batch has ``decoder_input_ids [B, T]`` (the new tokens), the encoder's
``attention_mask [B, L]``, and the cache's fields: the encoder's stages are skipped, the
new tokens are embedded at the positions from ``cache_index`` on, and the decoder's
blocks and the head run. The first call gets ``hidden={"encoder": …}`` too and stores
the keys and values of the encoder's tokens in ``cache``; later calls read them there.
All leaves of ``cache`` have the batch as first axis.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jft.models.arrays import at_least_float32
from jft.models.cudnn import attend_fused, choose_cudnn
from jft.models.dropout import Dropout
from jft.models.layers import Init, dense
from jft.models.masks import Mask
from jft.models.mixing import mix_values
from jft.models.packing import (
    is_packed,
    mask_read,
    rows_read,
    same_text,
    tokens_read,
)
from jft.models.virtual_tokens import Seen, Sight, num_before
from jft.types import InputError


def padding_mask(batch: Mapping[str, Any], name: str = "attention_mask") -> Mask | None:
    """Every query looks at the keys that are no padding; None: there is none.

    In packed rows it looks at the keys of its own text, padding at padding.
    """
    if is_packed(batch):
        return Mask(allowed=same_text(batch))
    if name not in batch:
        return None
    keys = jnp.asarray(batch[name]).astype(bool)
    return Mask(allowed=keys[:, None, None, :], keys=keys, complete=True)


def causal_mask(
    batch: Mapping[str, Any],
    *,
    window: int | None = None,
    ids: str = "input_ids",
    padding: str = "attention_mask",
) -> Mask:
    """Each token looks at itself and those before it.

    The keys are also those that stand before the text, see `jft.models.virtual_tokens`.

    Args:
      batch: the field ``ids [B, L]``; optionally ``padding [B, L]``, the fields of
        packed rows, or the cache's.
      window: how many tokens a query sees, itself included; None for all.
      ids: the field that has the tokens.
      padding: the field that is 0 at padding.
    """
    length, decodes = batch[ids].shape[1], "cache_mask" in batch
    known = padding_mask(batch, "cache_mask" if decodes else padding)
    keys = None if known is None else known.allowed
    start, before = first_position(batch), num_before(batch)
    num_keys = length if keys is None else keys.shape[-1]
    if before:
        start, num_keys = start + before, num_keys + before
    if before and keys is not None:
        keys = jnp.pad(keys, [(0, 0)] * 3 + [(before, 0)], constant_values=True)
    distance = (start + jnp.arange(length))[:, None] - jnp.arange(num_keys)[None]
    allowed = distance >= 0
    if window is not None:
        allowed &= distance < window
    allowed = allowed[None, None]
    if keys is not None:
        allowed = jnp.logical_and(allowed, keys)
    if decodes or before:
        return Mask(allowed=allowed)
    return Mask(
        allowed=allowed,
        causal=True,
        window=window,
        keys=None if known is None else known.keys,
        complete=known is None or known.complete,
    )


def token_positions(batch: Mapping[str, Any]) -> jax.Array:
    """The batch's positions, or counted from the cache's slot: ``[B or 1, L]``.

    Both count from what stands before the text, see `jft.models.virtual_tokens`.
    """
    before = num_before(batch)
    if "position_ids" in batch:
        return jnp.asarray(batch["position_ids"], jnp.int32) + before
    slots = jnp.arange(batch["input_ids"].shape[1])
    return (first_position(batch) + slots + before)[None]


def split_heads(x: jax.Array, num_heads: int) -> jax.Array:
    """``[B, L, H*K] -> [B, L, H, K]``."""
    return x.reshape(*x.shape[:-1], num_heads, x.shape[-1] // num_heads)


def merge_heads(x: jax.Array) -> jax.Array:
    """``[B, L, H, K] -> [B, L, H*K]``."""
    return x.reshape(*x.shape[:-2], -1)


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    mask: Mask | None,
    scale: float,
    bias: jax.Array | None = None,
    softcap: float | None = None,
    cross: bool = False,
    dropout_rate: float = 0.0,
    deterministic: bool = True,
) -> jax.Array:
    """Mix the values of the keys that each query resembles.

    Args:
      query: ``[B, L, H, K]``.
      key: ``[B, S, G, K]``; G divides H, and ``H / G`` queries in a row share a key.
      value: ``[B, S, G, K]``.
      mask: who may look at whom; None lets all look at all.
      scale: factor of the scores.
      bias: added to the scaled scores, ``[B or 1, H or 1, L, S]``; it may have columns
        for what stands before, see `jft.models.virtual_tokens`.
      softcap: bounds the scaled scores softly, ``c tanh(s / c)``; before bias and mask.
      cross: the keys are another text's.
      dropout_rate: of the probabilities.
      deterministic: False drops out; call inside a compact method then.

    Returns:
      ``[B, L, H, K]``. On a GPU cuDNN may compute it, see `jft.models.cudnn`.
    """
    seen = Sight(cross)(Seen(key, value, mask, bias))
    words = Dropout(dropout_rate).words(deterministic)
    plain = functools.partial(_attend_plainly, scale=scale, softcap=softcap)
    if not choose_cudnn(query, seen, softcap=softcap, drops=words is not None):
        return plain(query, seen, words, dropout_rate)
    fused = functools.partial(attend_fused, scale=scale)
    return jax.lax.platform_dependent(query, seen, cuda=fused, default=plain)


def _attend_plainly(
    query: jax.Array,
    seen: Seen,
    words: jax.Array | None = None,
    dropout_rate: float = 0.0,
    *,
    scale: float,
    softcap: float | None,
) -> jax.Array:
    """`attend` in products and sums; ``words`` as in `jft.models.mixing`."""
    batch, length, heads, width = query.shape
    groups, num_keys = seen.key.shape[2], seen.key.shape[1]
    q = (query * jnp.asarray(scale, query.dtype)).transpose(0, 2, 1, 3)
    q = q.reshape(batch, groups, heads // groups * length, width)
    k, v = seen.key.transpose(0, 2, 3, 1), seen.value.transpose(0, 2, 1, 3)
    scores = at_least_float32((q @ k).reshape(batch, heads, length, num_keys))
    if softcap is not None:
        scores = jnp.tanh(scores / softcap) * softcap
    if seen.bias is not None:
        scores = scores + seen.bias.astype(scores.dtype)
    if seen.mask is not None:
        least = float(np.finfo(scores.dtype).min)
        scores = jnp.where(seen.mask.allowed, scores, least)
    scores = scores.reshape(batch, groups, heads // groups * length, num_keys)
    mixed = mix_values(scores, v, words, dropout_rate)
    return mixed.reshape(batch, heads, length, -1).transpose(0, 2, 1, 3)


def self_attention(
    x: jax.Array,
    mask: Mask | None,
    *,
    num_heads: int,
    names: tuple[str, str, str] = ("query", "key", "value"),
    init: Init,
    dropout_rate: float,
    deterministic: bool,
    num_read: int | None = None,
    first: jax.Array | None = None,
) -> jax.Array:
    """Let an encoder's tokens look at each other; without the output product.

    Args:
      x: ``[B, L, D]``.
      mask: as in ``attend``.
      num_heads: H, which divides D.
      names: of the three products, made in the module that calls.
      init: how their matrices are drawn.
      dropout_rate: of the probabilities.
      deterministic: False drops out.
      num_read: how many tokens look, the first ones; None: all.
      first: which these are in packed rows, see `jft.models.packing`.

    Returns:
      ``[B, L or num_read, D]``.
    """
    length, width = x.shape[1:]
    query, key, value = (
        split_heads(dense(of, width, name=name, init=init), num_heads)
        for of, name in zip((tokens_read(x, num_read, first), x, x), names, strict=True)
    )
    if num_read is not None and mask is not None:
        mask = mask_read(mask, length, first)
        key, value = (rows_read(of, length, first) for of in (key, value))
    mixed = attend(
        query,
        key,
        value,
        mask=mask,
        scale=(width // num_heads) ** -0.5,
        dropout_rate=dropout_rate,
        deterministic=deterministic,
    )
    return merge_heads(mixed)


def with_cache(
    module: nn.Module, batch: Mapping[str, Any], key: jax.Array, value: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Write keys and values to their slots and return all slots, while decoding.

    Args:
      module: the attention module, which owns the cache.
      batch: with ``cache_mask [B, S]`` and ``cache_index []``; without them keys and
        values are returned as they are.
      key: ``[B, L, G, K]`` of this call's tokens.
      value: the same.

    Returns:
      Keys and values, ``[B, S, G, K]``.
    """
    if "cache_mask" not in batch:
        return key, value
    slots = batch["cache_mask"].shape[1]
    index = jnp.asarray(batch["cache_index"], jnp.int32)

    def write(name: str, new: jax.Array) -> jax.Array:
        shape = (new.shape[0], slots, *new.shape[2:])
        stored = module.variable("cache", name, jnp.zeros, shape, new.dtype)
        stored.value = jax.lax.dynamic_update_slice_in_dim(
            stored.value, new, index, axis=1
        )
        return stored.value

    return write("key", key), write("value", value)


def kept_in_cache(
    module: nn.Module,
    batch: Mapping[str, Any],
    encoder: jax.Array | None,
    make: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
) -> tuple[jax.Array, jax.Array]:
    """Make the encoder's keys and values once: later decoding calls read the cache.

    Args:
      module: the attention module, which owns the cache.
      batch: with ``cache_mask`` while decoding.
      encoder: ``[B, L, D]``; not used where the cache has its keys and values.
      make: makes keys and values ``[B, L, G, K]`` of it.

    Returns:
      Keys and values.

    Raises:
      InputError: if the first decoding call lacks the encoder.
    """
    decoding = "cache_mask" in batch
    if not decoding or not module.has_variable("cache", "key"):
        if encoder is None:
            raise InputError(
                'the first call that decodes needs hidden={"encoder": …}, what a call '
                "with stop=n + 1 of n encoder blocks returned."
            )
        key, value = make(encoder)
        if not decoding:
            return key, value
        module.put_variable("cache", "key", key)
        module.put_variable("cache", "value", value)
    return module.get_variable("cache", "key"), module.get_variable("cache", "value")


def first_position(batch: Mapping[str, Any]) -> jax.Array:
    """Position of a decoder's first token in this call, ``[]``: 0 unless decoding."""
    index = batch["cache_index"] if "cache_mask" in batch else 0
    return jnp.asarray(index, jnp.int32)
