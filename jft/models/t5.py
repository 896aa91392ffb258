# SPDX-License-Identifier: Apache-2.0
"""T5 in its three layouts: T5, T5 v1.1 and FLAN-T5.

Stages as in `jft.models.encoder_decoder`. Positions enter as a bias of the attention
scores by distance, from one table a side, which the first block keeps for all blocks;
its depth is 0, as that of the words.

Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified
Text-to-Text Transformer", arXiv 1910.10683. FLAN: Chung et al. 2022, arXiv 2210.11416.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jft.models import heads
from jft.models.attention import causal_mask, first_position, padding_mask
from jft.models.depth import Place
from jft.models.dropout import Dropout, dropout
from jft.models.encoder_decoder import (
    TIED_WORDS,
    EncoderDecoder,
    Hidden,
    Stacks,
    two_texts_example,
    with_shifted_input,
)
from jft.models.family import Family
from jft.models.layers import Blocks, Embed, Init, RMSNorm, activate, dense, normal
from jft.models.masks import Mask
from jft.models.t5_attention import Attention
from jft.models.t5_config import T5Config, config_from_dict, settle_config
from jft.models.virtual_tokens import num_before
from jft.types import Batch


class DenseReluDense(nn.Module):
    """The MLP, under the name it had when its activation was always relu."""

    config: T5Config

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``."""
        cfg = self.config

        def widen(name: str) -> jax.Array:
            init = cfg.init(cfg.d_model)
            return dense(x, cfg.d_ff, name=name, init=init, bias=False)

        wide = activate(widen("wi_0" if cfg.gated else "wi"), cfg.activation)
        if cfg.gated:
            wide = wide * widen("wi_1")
        wide = dropout(wide, cfg.dropout_rate, deterministic=deterministic)
        init = cfg.init(cfg.d_ff)
        return dense(wide, cfg.d_model, name="wo", init=init, bias=False)


class Layer(nn.Module):
    """One part of a block: normed before, dropped out and added."""

    config: T5Config
    part: str  # its name in the checkpoint
    make: Callable[[], nn.Module]

    def setup(self) -> None:
        """Name the parts as the checkpoint does."""
        setattr(self, self.part, self.make())
        self.layer_norm = RMSNorm(self.config.layer_norm_epsilon)
        self.dropout = Dropout(self.config.dropout_rate)

    def __call__(
        self, x: jax.Array, *args: Any, deterministic: bool, **options: Any
    ) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``."""
        part, normed = getattr(self, self.part), self.layer_norm(x)
        y = part(normed, *args, deterministic=deterministic, **options)
        return x + self.dropout(y, deterministic)


class Layers(nn.Module):
    """The parts of a block, under the checkpoint's numbers."""

    config: T5Config
    causal: bool
    has_table: bool

    def setup(self) -> None:
        """Self-attention, in the decoder attention to the encoder, MLP."""
        cfg, causal = self.config, self.causal
        parts: dict[str, Callable[[], nn.Module]] = {
            "SelfAttention": lambda: Attention(cfg, causal, has_table=self.has_table),
            "EncDecAttention": lambda: Attention(cfg, causal, cross=True),
            "DenseReluDense": lambda: DenseReluDense(cfg),
        }
        names = [name for name in parts if causal or name != "EncDecAttention"]
        for i, name in enumerate(names):
            setattr(self, str(i), Layer(cfg, name, parts[name]))

    def position_bias(self, queries: jax.Array, num_keys: int) -> jax.Array:
        """Bias of all blocks' scores, which only the first block has."""
        attention = getattr(self, "0").SelfAttention
        return attention.position_bias(queries, num_keys)

    def __call__(
        self,
        x: jax.Array,
        batch: Batch,
        mask: Mask | None,
        *,
        bias: jax.Array,
        encoder: jax.Array | None = None,
        deterministic: bool,
    ) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``."""
        options = {"deterministic": deterministic}
        *attentions, mlp = [getattr(self, str(i)) for i in range(2 + self.causal)]
        x = attentions[0](x, batch, mask, bias=bias, **options)
        for cross in attentions[1:]:
            x = cross(x, batch, padding_mask(batch), encoder=encoder, **options)
        return mlp(x, **options)


class Block(nn.Module):
    """Holds the parts of a block under the checkpoint's name."""

    config: T5Config
    causal: bool
    has_table: bool

    def setup(self) -> None:
        """Make the parts."""
        self.layer = Layers(self.config, self.causal, self.has_table)

    def position_bias(self, queries: jax.Array, num_keys: int) -> jax.Array:
        """As that of the parts."""
        return self.layer.position_bias(queries, num_keys)

    def __call__(self, x: jax.Array, *args: Any, **options: Any) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``."""
        return self.layer(x, *args, **options)


class Stack(nn.Module):
    """The encoder, or the causal decoder."""

    config: T5Config
    causal: bool

    def setup(self) -> None:
        """Name the parts as the checkpoint does."""
        cfg, causal = self.config, self.causal
        self.block = Blocks(lambda i: Block(cfg, causal, i == 0, name=str(i)))
        self.final_layer_norm = RMSNorm(cfg.layer_norm_epsilon)
        self.first_dropout = Dropout(cfg.dropout_rate)
        self.last_dropout = Dropout(cfg.dropout_rate)

    @property
    def num_layers(self) -> int:
        """Blocks of this side."""
        cfg = self.config
        return cfg.decoder_layers if self.causal else cfg.num_layers

    def embed(
        self, table: Embed, ids: jax.Array, batch: Batch, *, deterministic: bool
    ) -> jax.Array:
        """Map ids ``[B, L]`` to ``[B, L, D]``."""
        return self.first_dropout(table(ids), deterministic)

    def __call__(
        self,
        x: jax.Array,
        batch: Batch,
        blocks: range,
        *,
        deterministic: bool,
        **options: Any,
    ) -> jax.Array:
        """Run the given blocks, and the norm behind the last one."""
        mask = padding_mask(batch)
        queries, num_keys = jnp.arange(x.shape[1]), x.shape[1]
        if self.causal:
            mask = causal_mask(
                batch, ids="decoder_input_ids", padding="decoder_attention_mask"
            )
            before = num_before(batch)
            queries = queries + first_position(batch) + before
            num_keys = mask.allowed.shape[-1]
        x = self.block(
            x,
            blocks,
            batch,
            mask,
            from_first=lambda b: {"bias": b.position_bias(queries, num_keys)},
            deterministic=deterministic,
            **options,
        )
        if self.num_layers - 1 in blocks:
            x = self.last_dropout(self.final_layer_norm(x), deterministic)
        return x


class T5(EncoderDecoder):
    """T5 with the head of a task; its parameter paths are the checkpoint's keys.

    It classifies tokens by the encoder alone.
    """

    config: T5Config

    def num_layers_of_sides(self) -> tuple[int, int]:
        """The blocks of the encoder and of the decoder."""
        return self.config.num_layers, self.config.decoder_layers

    def prepare(self, batch: Batch) -> Batch:
        """Let the decoder read ``input_ids`` for heads that answer about them."""
        if self.task in ("sequence_classification", "question_answering"):
            return with_shifted_input(batch, self.config.decoder_start_token_id)
        return batch

    def make_backbone(self) -> Stacks:
        """Everything but the head, under the checkpoint's names."""
        cfg, init = self.config, normal(self.config.initializer_factor)
        shared = Embed(cfg.vocab_size, cfg.d_model, init, name="shared")
        encoder, decoder = Stack(cfg, False, name="encoder"), None
        if self.task != "token_classification":
            decoder = Stack(cfg, True, name="decoder")
        return Stacks(encoder, decoder, (shared, shared), self.num_layers_of_sides())

    def classifier_init(self) -> Init:
        """As a product of the model's width is drawn."""
        return self.config.init(self.config.d_model)

    def answer(
        self, x: Hidden, batch: Batch, backbone: Stacks, *, deterministic: bool
    ) -> Any:
        """What the head makes of the hidden states, see `jft.models.heads`."""
        cfg = self.config
        if self.task == "token_classification":
            return heads.classify_tokens(
                x["encoder"],
                cfg.num_labels,
                rate=cfg.classifier_dropout,
                deterministic=deterministic,
                init=cfg.init(),
            )
        return super().answer(x, batch, backbone, deterministic=deterministic)

    def score_words(self, x: jax.Array, backbone: Stacks) -> jax.Array:
        """Score every word: ``[B, M, D] -> [B, M, V]``."""
        cfg = self.config
        if cfg.scaled:
            x = x * cfg.d_model**-0.5
        if cfg.tie_word_embeddings:
            return backbone.score_words(x)
        return dense(x, cfg.vocab_size, name="lm_head", init=cfg.init(), bias=False)


def _v1_1(d_model: int, **changes: Any) -> T5Config:
    return T5Config(
        d_model=d_model,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        **changes,
    )


FAMILY = Family(
    model_type="t5",
    heads={
        "base": "T5Model",
        "seq2seq_lm": "T5ForConditionalGeneration",
        "sequence_classification": "T5ForSequenceClassification",
        "token_classification": "T5ForTokenClassification",
        "question_answering": "T5ForQuestionAnswering",
    },
    base_prefix="",
    prefix_exceptions={
        "sequence_classification": "transformer",
        "token_classification": "transformer",
    },
    config_from_dict=config_from_dict,
    settle_config=settle_config,
    make_module=T5,
    example_batch=two_texts_example,
    depths=(
        (r"shared/.+", Place.EMBEDDINGS),
        (r".+/relative_attention_bias/.+", Place.EMBEDDINGS),
        (r"encoder/block/(\d+)/.+", Place.BLOCK),
        (r"encoder/final_layer_norm/.+", Place.ENCODER_END),
        (r"decoder/block/(\d+)/.+", Place.DECODER_BLOCK),
    ),
    final_norm=r"decoder/final_layer_norm/.*",
    head_rules={
        "base": (),
        "seq2seq_lm": (r"lm_head/.*",),
        "sequence_classification": (r"classification_head/.*",),
        "token_classification": (r"classifier/.*",),
        "question_answering": (r"qa_outputs/.*",),
    },
    shared_rules=(r"shared/.*", r".*/relative_attention_bias/.*"),
    embedding_rules=(r"shared/.*", r"lm_head/.*"),
    column_parallel=r"[qkv]|wi(?:_\d)?",
    row_parallel=r"o|wo",
    tied_outputs=((r"lm_head\.weight", r"shared\.weight"),),
    tied_words=TIED_WORDS,
    # t5-small and its size-mates: cross-attention has no distances
    buffers=(
        r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",
    ),
    special_ids={"decoder_start_token_id": "pad"},
    variants={
        "t5-small": T5Config(),
        "t5-base": T5Config(d_model=768, d_ff=3072, num_layers=12, num_heads=12),
        "flan-t5-base": _v1_1(768, num_layers=12, num_heads=12),
        "flan-t5-large": _v1_1(1024, d_ff=2816, num_layers=24, num_heads=16),
    },
)
