# SPDX-License-Identifier: Apache-2.0
"""What encoder-decoders share: two texts in stages, and what the decoder starts from.

With n encoder and m decoder blocks, stage 0 embeds both texts, stages 1 to n are the
encoder's blocks, n + 1 to n + m the decoder's, and n + m + 1 is the head. ``hidden`` is
``{"encoder": [B, L, D], "decoder": [B, M, D]}``; a norm behind the last block of either
side belongs to that block. Decoding with a cache is described in
`jft.models.attention`.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jft.models import heads
from jft.models.before import text_ids
from jft.models.dropout import dropout
from jft.models.family import Shapes
from jft.models.layers import Embed, Init, dense
from jft.models.packing import refuse_packed
from jft.models.stages import Stages
from jft.types import Batch, InputError

Hidden = dict[str, jax.Array]


def two_texts_example(config: Any, task: str) -> Shapes:
    """Two texts of four tokens."""
    ids = jax.ShapeDtypeStruct((1, 4), jnp.int32)
    return {"input_ids": ids, "decoder_input_ids": ids}


def numbers_below(count: int) -> str:
    """A regex of one group that matches the numbers of that many blocks.

    >>> numbers_below(3)
    '(0|1|2)'
    """
    return f"({'|'.join(map(str, range(count)))})"


def run_stages(
    encoder: Any,
    decoder: Any,
    batch: Batch,
    hidden: Mapping[str, jax.Array] | None,
    stages: Stages,
    *,
    num_layers: tuple[int, int],
    tables: tuple[Embed, Embed],
    deterministic: bool,
) -> Hidden:
    """Run the stages below the head.

    Args:
      encoder: a module with ``embed(table, ids, batch, deterministic=…)`` and
        ``__call__(x, batch, blocks, deterministic=…)``, which ends with the norm
        behind the last block where that block runs.
      decoder: the same, whose call takes ``encoder=`` too; None for the heads that
        read the encoder alone, for which the decoder's stages do nothing.
      batch: ``input_ids``, ``decoder_input_ids`` (may be absent while only the encoder
        runs), masks, and while decoding the cache's fields.
      hidden: what an earlier call returned; while decoding the finished encoder.
      stages: which run.
      num_layers: blocks of the encoder and of the decoder.
      tables: the words of the encoder and of the decoder.
      deterministic: False drops out.

    Raises:
      InputError: if the decoder is to run and there are no tokens for it, or the rows
        are packed.
    """
    refuse_packed(batch, "an encoder-decoder reads one text a row")
    encoder_blocks = stages.part(0, num_layers[0])
    decoder_blocks = stages.part(*num_layers)
    options = {"deterministic": deterministic}
    hidden = dict(hidden or {})
    if "cache_mask" not in batch:
        if stages.embed:
            ids = jnp.asarray(batch["input_ids"])
            hidden["encoder"] = encoder.embed(tables[0], ids, batch, **options)
        x = hidden["encoder"]
        hidden["encoder"] = encoder(x, batch, encoder_blocks, **options)
    if decoder is None:
        return hidden
    if stages.embed and "decoder_input_ids" in batch:
        ids = jnp.asarray(batch["decoder_input_ids"])
        hidden["decoder"] = decoder.embed(tables[1], ids, batch, **options)
    if decoder_blocks:
        if "decoder" not in hidden:
            raise InputError(
                "the batch has no decoder_input_ids, and this model does not make "
                f"them; its fields are {sorted(batch)}."
            )
        hidden["decoder"] = decoder(
            hidden["decoder"],
            batch,
            decoder_blocks,
            encoder=hidden.get("encoder"),
            **options,
        )
    return hidden


def shift_right(ids: jax.Array, first: Any) -> jax.Array:
    """Put ``first`` (an id, or one a row) before the tokens ``[B, L]``; drop the last.

    >>> shift_right(jnp.asarray([[5, 6, 1]]), 0).tolist()
    [[0, 5, 6]]
    """
    start = jnp.broadcast_to(jnp.asarray(first, ids.dtype), ids.shape[:1])
    return jnp.concatenate([start[:, None], ids[:, :-1]], axis=1)


def with_shifted_input(batch: Batch, start_id: int | jax.Array | None) -> Batch:
    """Let the decoder read the encoder's text, where the batch has no other for it.

    Args:
      batch: a decoding call's, which lacks ``input_ids``, stays as it is.
      start_id: what the decoder's text starts with; one for all rows or one a row.

    Raises:
      InputError: if the config has no id to start with.
    """
    if "decoder_input_ids" in batch or "input_ids" not in batch:
        return batch
    if start_id is None:
        raise InputError(
            "the batch has no decoder_input_ids, and they cannot be made of input_ids: "
            "config.json has no decoder_start_token_id."
        )
    ids = text_ids(batch).astype(jnp.int32)
    return {**batch, "decoder_input_ids": shift_right(ids, start_id)}


def at_last_eos(x: jax.Array, batch: Batch, eos_id: int | None) -> jax.Array:
    """The decoder's state where the encoder's text ends: ``[B, L, D] -> [B, D]``.

    Raises:
      InputError: if the two texts have different lengths, or the config no end.
    """
    ids = text_ids(batch)
    if ids.shape != x.shape[:2]:
        raise InputError(
            f"this head reads the decoder where input_ids {list(ids.shape)} have their "
            f"last eos_token_id, but the decoder's text is {list(x.shape[:2])}; leave "
            "out decoder_input_ids."
        )
    if eos_id is None:
        raise InputError("config.json: eos_token_id is null; this head needs it.")
    positions = jnp.arange(ids.shape[1])[None]
    last = jnp.max(jnp.where(ids == eos_id, positions, 0), axis=-1)
    return x[jnp.arange(ids.shape[0]), last]


def answer(
    task: str,
    hidden: Hidden,
    batch: Batch,
    *,
    num_labels: int,
    eos_id: int | None,
    rate: float,
    init: Init,
    deterministic: bool,
) -> Any:
    """What the heads that read the decoder's states answer, see `jft.models.heads`."""
    x = hidden["decoder"]
    if task == "question_answering":
        return heads.mark_span(x, init=init)
    if task == "sequence_classification":
        head = ClassificationHead(num_labels, rate, init, name="classification_head")
        return head(at_last_eos(x, batch, eos_id), deterministic=deterministic)
    return {"last_hidden_state": x, "encoder_last_hidden_state": hidden["encoder"]}


class ClassificationHead(nn.Module):
    """Two layers with dropout before each."""

    num_labels: int
    rate: float
    init: Init

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
        """Map ``[B, D] -> [B, C]``."""
        x = dropout(x, self.rate, deterministic=deterministic)
        x = jnp.tanh(dense(x, x.shape[-1], name="dense", init=self.init))
        x = dropout(x, self.rate, deterministic=deterministic)
        return dense(x, self.num_labels, name="out_proj", init=self.init)
