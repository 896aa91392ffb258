# SPDX-License-Identifier: Apache-2.0
"""What encoder-decoders share: two texts in stages, and what the decoder starts from.

With n encoder and m decoder blocks, stage 0 embeds both texts, stages 1 to n are the
encoder's blocks, n + 1 to n + m the decoder's, and n + m + 1 is the head. ``hidden`` is
``{"encoder": [B, L, D], "decoder": [B, M, D]}``; a norm behind the last block of either
side belongs to that block. Decoding with a cache is described in
`jft.models.attention`.
"""

import abc
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jft.models import heads
from jft.models.dropout import dropout
from jft.models.family import Shapes
from jft.models.layers import Embed, Init, dense
from jft.models.model import StagedModel
from jft.models.packing import refuse_packed
from jft.models.stages import Stages
from jft.models.virtual_tokens import text_ids
from jft.types import Batch, InputError

Hidden = dict[str, jax.Array]

# with one table of words, torch saved every name of it
TIED_WORDS = ((r"(?:encoder|decoder)\.embed_tokens\.weight", r"shared\.weight"),)


def two_texts_example(config: Any, task: str) -> Shapes:
    """Two texts of four tokens."""
    ids = jax.ShapeDtypeStruct((1, 4), jnp.int32)
    return {"input_ids": ids, "decoder_input_ids": ids}


class Stacks(NamedTuple):
    """Both sides of a model, run stage after stage.

    A side is a module with ``embed(table, ids, batch, deterministic=…)`` and
    ``__call__(x, batch, blocks, deterministic=…)``, which ends with the norm behind the
    last block where that block runs; the decoder's call takes ``encoder=`` too.
    """

    encoder: Any
    decoder: Any  # None, and its stages do nothing, where the head reads the encoder
    tables: tuple[Embed, Embed]  # the words of the encoder and of the decoder
    num_layers: tuple[int, int]  # blocks of both

    def __call__(
        self,
        batch: Batch,
        hidden: Mapping[str, jax.Array] | None,
        stages: Stages,
        *,
        deterministic: bool,
    ) -> Hidden:
        """Run the stages below the head.

        Args:
          batch: ``input_ids``, ``decoder_input_ids`` (may be absent while only the
            encoder runs), masks, and while decoding the cache's fields.
          hidden: what an earlier call returned; while decoding the finished encoder.
          stages: which run.
          deterministic: False drops out.

        Raises:
          InputError: if the decoder is to run and there are no tokens for it, or the
            rows are packed.
        """
        refuse_packed(batch, "an encoder-decoder reads one text a row")
        encoder_blocks = stages.part(0, self.num_layers[0])
        options = {"deterministic": deterministic}
        hidden = dict(hidden or {})
        if "cache_mask" not in batch:
            if stages.embed:
                ids = jnp.asarray(batch["input_ids"])
                hidden["encoder"] = self.encoder.embed(
                    self.tables[0], ids, batch, **options
                )
            x = hidden["encoder"]
            hidden["encoder"] = self.encoder(x, batch, encoder_blocks, **options)
        if self.decoder is None:
            return hidden
        if stages.embed and "decoder_input_ids" in batch:
            ids = jnp.asarray(batch["decoder_input_ids"])
            hidden["decoder"] = self.decoder.embed(
                self.tables[1], ids, batch, **options
            )
        decoder_blocks = stages.part(*self.num_layers)
        if decoder_blocks:
            if "decoder" not in hidden:
                raise InputError(
                    "the batch has no decoder_input_ids, and this model does not make "
                    f"them; its fields are {sorted(batch)}."
                )
            hidden["decoder"] = self.decoder(
                hidden["decoder"],
                batch,
                decoder_blocks,
                encoder=hidden.get("encoder"),
                **options,
            )
        return hidden

    def score_words(self, x: jax.Array) -> jax.Array:
        """Score ``[B, M, D]`` against the decoder's words: the tied output layer."""
        return self.tables[1].attend(x)


class EncoderDecoder(StagedModel):
    """A model of two texts.

    A batch has ``input_ids [B, L]`` and ``decoder_input_ids [B, M]``; optionally
    ``attention_mask`` and ``decoder_attention_mask`` (1 real, 0 padding). Where the
    second text is not there, `prepare` may make it of the first. Hidden states are
    ``{"encoder": [B, L, D], "decoder": [B, M, D]}``.
    """

    @abc.abstractmethod
    def num_layers_of_sides(self) -> tuple[int, int]:
        """The blocks of the encoder and of the decoder."""

    @abc.abstractmethod
    def score_words(self, x: jax.Array, backbone: Any) -> jax.Array:
        """Score every word: ``[B, M, D] -> [B, M, V]``."""

    @abc.abstractmethod
    def classifier_init(self) -> Init:
        """How the matrices of classifiers of the decoder's states are drawn."""

    def num_layers(self) -> int:
        """The blocks of both sides."""
        return sum(self.num_layers_of_sides())

    def num_encoder_layers(self) -> int:
        """The blocks of the encoder."""
        return self.num_layers_of_sides()[0]

    def answer(
        self, x: Hidden, batch: Batch, backbone: Any, *, deterministic: bool
    ) -> Any:
        """What the head makes of the decoder's states, see `jft.models.heads`."""
        cfg, task, init = self.config, self.task, self.classifier_init()
        states = x["decoder"]
        if task == "seq2seq_lm":
            return self.score_words(states, backbone)
        if task == "question_answering":
            return heads.mark_span(states, init=init)
        if task == "sequence_classification":
            head = ClassificationHead(
                cfg.num_labels, cfg.classifier_dropout, init, name="classification_head"
            )
            last = at_last_eos(states, batch, cfg.eos_token_id)
            return head(last, deterministic=deterministic)
        return {
            "last_hidden_state": states,
            "encoder_last_hidden_state": x["encoder"],
        }


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
