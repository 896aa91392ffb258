# SPDX-License-Identifier: Apache-2.0
"""A model that reads a prompt at once, then tokens one by one through its cache.

The protocol is described in `jft.models.attention`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jft.types import Params

Cache = Any  # the linen collection; every leaf's first axis is the batch


class Prompt(NamedTuple):
    """What is there before the first new token."""

    tokens: Any  # [B, P] int32, padded on the left
    attention_mask: Any  # [B, P] bool, false at padding
    encoder: Mapping[str, Any]  # an encoder's input_ids, attention_mask; or {}
    adapter_ids: Any | None = None  # [B] int32, of a model of several adapters


class CachedModel(NamedTuple):
    """A language model; static under jit."""

    module: Any
    num_layers: int
    num_encoder_layers: int  # 0: there is no encoder


def read_prompt(
    model: CachedModel, params: Params, prompt: Prompt, *, num_new: int
) -> Cache:
    """Fill the cache with all of the prompt but its last token.

    A prompt of one token is read: an encoder's keys and values come with the first
    call. `read_token` then writes the same once more.

    Returns:
      The cache, with slots for the prompt and ``num_new`` tokens.
    """
    width = max(1, prompt.tokens.shape[1] - 1)
    tokens, boundary = prompt.tokens[:, :width], model.num_layers + 1
    fields = _cache_fields(prompt, num_new, start=0, stop=width)
    variables, hidden = {"params": params}, None
    if model.num_encoder_layers:
        encoded = model.module.apply(
            variables,
            {**prompt.encoder, **_own_fields(prompt)},
            stop=model.num_encoder_layers + 1,
        )
        hidden = {"encoder": encoded["encoder"]}
        fields["decoder_input_ids"] = tokens
        fields["attention_mask"] = prompt.encoder["attention_mask"]
    else:
        positions = jnp.cumsum(prompt.attention_mask[:, :width], axis=1) - 1
        fields["input_ids"] = tokens
        fields["position_ids"] = jnp.maximum(positions, 0)
    _, changed = model.module.apply(
        variables, fields, hidden=hidden, stop=boundary, mutable=["cache"]
    )
    return changed["cache"]


def read_token(
    model: CachedModel,
    params: Params,
    prompt: Prompt,
    cache: Cache,
    texts: jax.Array,
    *,
    step: jax.Array,
) -> tuple[jax.Array, Cache]:
    """Run the last token of every text.

    Args:
      model: the model.
      params: its numbers.
      prompt: of B texts.
      cache: of ``R`` texts, where R is a multiple of B: beams of a text follow each
        other.
      texts: ``[R, S]``, prompt and new tokens.
      step: how many new tokens are written.

    Returns:
      The scores of the next token ``[R, V]`` in float32, and the cache.
    """
    repeats = texts.shape[0] // prompt.tokens.shape[0]
    prompt = jax.tree.map(lambda x: jnp.repeat(x, repeats, axis=0), prompt)
    width = prompt.tokens.shape[1]
    slot, num_new = width + step - 1, texts.shape[1] - width
    token = jax.lax.dynamic_slice_in_dim(texts, slot, 1, axis=1)
    fields = _cache_fields(prompt, num_new, start=slot, stop=slot + 1)
    if model.num_encoder_layers:
        fields["decoder_input_ids"] = token
        fields["attention_mask"] = prompt.encoder["attention_mask"]
    else:
        fields["input_ids"] = token
        fields["position_ids"] = (
            prompt.attention_mask.sum(axis=1, keepdims=True) + step - 1
        )
    logits, changed = model.module.apply(
        {"params": params, "cache": cache}, fields, mutable=["cache"]
    )
    return logits[:, -1].astype(jnp.float32), changed["cache"]


def written_slots(prompt: Prompt, num_new: int, stop: Any) -> jax.Array:
    """Which slots hold a token, of the prompt or new: bool ``[B, S]``."""
    mask = jnp.pad(prompt.attention_mask, ((0, 0), (0, num_new)), constant_values=True)
    return mask & (jnp.arange(mask.shape[1]) < stop)[None]


def _cache_fields(
    prompt: Prompt, num_new: int, *, start: Any, stop: Any
) -> dict[str, jax.Array]:
    return {
        **_own_fields(prompt),
        "cache_mask": written_slots(prompt, num_new, stop),
        "cache_index": jnp.asarray(start, jnp.int32),
    }


def _own_fields(prompt: Prompt) -> dict[str, Any]:
    """What each text brings to every call."""
    return {} if prompt.adapter_ids is None else {"adapter_ids": prompt.adapter_ids}
