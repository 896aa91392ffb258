# SPDX-License-Identifier: Apache-2.0
"""A forward of texts that are longer inside the model than outside of it."""

from typing import Any

import jax
import jax.numpy as jnp

from jft.models.model import TextModel
from jft.models.packing import refuse_packed
from jft.params.adapters.adapter import Forward, LeavesOf
from jft.types import Batch

# heads of one text that answer for each token, and read no other
TOKEN_HEADS = ("causal_lm", "masked_lm", "question_answering", "token_classification")


def run_lengthened(
    run: Forward,
    module: Any,
    batch: Batch,
    own: LeavesOf,
    *,
    count: int,
    cached: bool,
    **options: Any,
) -> Any:
    """Run a model of texts with virtual tokens before each.

    They are in the hidden states of all boundaries but the head's, where only heads
    that do not answer by token have them, and in a decoder's cache. Of two texts the
    encoder's is longer.

    Args:
      run: the forward, of a batch and of the adapter's parameters.
      module: the family's.
      batch: of texts one a row.
      own: the adapter's parameters.
      count: P, the virtual tokens.
      cached: whether the cache has them already.
      options: ``start``, ``stop`` and other arguments of the forward.

    Raises:
      InputError: for packed rows.
    """
    refuse_packed(batch, "a prompt stands before the one text of a row")
    if not isinstance(module, TextModel):
        fields = _lengthen_encoder(batch, count, module.config)
        reads = options.get("start", 0) == 0 and "input_ids" in batch
        outputs = run(fields, own if reads else {}, **options)
        answers = options.get("stop") is None
        return _cut_encoder(outputs, module.task, count) if answers else outputs
    if cached:
        return run(_behind_cached(batch, count), {}, **options)
    boundary, by_token = module.num_layers() + 1, module.task in TOKEN_HEADS
    start, stop = options.get("start", 0), options.get("stop")
    if by_token and start == boundary:
        return run(batch, {}, **options)
    fields = _lengthen_text(batch, count, module.config)
    outputs = run(fields, {} if start else own, **options)
    if options.get("mutable"):  # the outputs, and what was changed
        hidden, changed = outputs
        return (hidden[:, count:] if by_token else hidden), changed
    if module.task == "base" and stop is None:
        return _cut_field(outputs, "last_hidden_state", count)
    cut = by_token and stop in (None, boundary)
    return outputs[:, count:] if cut else outputs


def lengthen(x: jax.Array, vectors: jax.Array, *, behind: int = 0) -> jax.Array:
    """Put vectors ``[P, D]`` behind the first of ``[B, L, D]``: ``[B, P + L, D]``."""
    vectors = vectors.astype(x.dtype)
    each = jnp.broadcast_to(vectors, (x.shape[0], *vectors.shape))
    return jnp.concatenate([x[:, :behind], each, x[:, behind:]], axis=1)


def _lengthen_text(batch: Batch, count: int, config: Any) -> Batch:
    """The fields of texts ``[B, P + L]``."""
    fields = _lengthen_ids(batch, count, config)
    if "position_ids" in batch:
        ids = jnp.asarray(batch["position_ids"], jnp.int32)
        first = ids.min(axis=1, keepdims=True) + jnp.arange(count)[None]
        fields["position_ids"] = jnp.concatenate([first, ids + count], axis=1)
    if "cache_mask" in batch:
        fields["cache_mask"] = _put_before(batch["cache_mask"], count, 1)
    return fields


def _behind_cached(batch: Batch, count: int) -> Batch:
    """The fields of tokens that follow those in a cache."""
    return {
        **batch,
        "position_ids": batch["position_ids"] + count,
        "cache_index": batch["cache_index"] + count,
        "cache_mask": _put_before(batch["cache_mask"], count, 1),
    }


def _lengthen_encoder(batch: Batch, count: int, config: Any) -> Batch:
    """The same of two texts, of which the decoder's stays; it may be alone there."""
    return {**_lengthen_ids(batch, count, config), "num_virtual": count}


def _lengthen_ids(batch: Batch, count: int, config: Any) -> dict[str, Any]:
    no_padding = 1 if getattr(config, "pad_token_id", None) == 0 else 0
    fills = {"input_ids": no_padding, "attention_mask": 1, "token_type_ids": 0}
    longer = {
        name: _put_before(batch[name], count, fill)
        for name, fill in fills.items()
        if name in batch
    }
    return {**batch, **longer}


def _put_before(x: Any, count: int, value: int) -> jax.Array:
    """Lengthen ``[B, L]`` by ``count`` values."""
    return jnp.pad(jnp.asarray(x), ((0, 0), (count, 0)), constant_values=value)


def _cut_encoder(outputs: Any, task: str, count: int) -> Any:
    """What an encoder-decoder answers, without the virtual tokens."""
    if task == "base":
        return _cut_field(outputs, "encoder_last_hidden_state", count)
    return outputs[:, count:] if task == "token_classification" else outputs


def _cut_field(outputs: Any, name: str, count: int) -> Any:
    return {**outputs, name: outputs[name][:, count:]}
