# SPDX-License-Identifier: Apache-2.0
"""BART, and the blocks that mBART and Marian build on.

Stages as in `jft.models.encoder_decoder`. The three differ in where the norms are, in
their positions, and in what the decoder reads where the batch does not say.

Lewis et al. 2020, "BART: Denoising Sequence-to-Sequence Pre-training for Natural
Language Generation, Translation, and Comprehension", arXiv 1910.13461.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jft.models.arrays import along_last
from jft.models.attention import (
    attend,
    causal_mask,
    first_position,
    kept_in_cache,
    merge_heads,
    padding_mask,
    split_heads,
    with_cache,
)
from jft.models.bart_config import BartConfig, read_config
from jft.models.depth import Place
from jft.models.dropout import Dropout, dropout
from jft.models.encoder_decoder import TIED_WORDS, EncoderDecoder, Hidden, Stacks
from jft.models.family import Family, limit_of_table
from jft.models.layers import Blocks, Embed, Init, LayerNorm, activate, dense
from jft.models.masks import Mask
from jft.models.positions import (
    LearnedPositions,
    SinusoidalPositions,
    check_length,
)
from jft.models.stages import Stages
from jft.models.virtual_tokens import num_before
from jft.types import Batch

EPS = 1e-5  # of every norm


def make_words(config: BartConfig, count: int) -> Embed:
    """A table of words."""
    return Embed(count, config.d_model, config.init, config.pad_token_id)


class Attention(nn.Module):
    """Attention to the tokens themselves or, with ``cross``, to the encoder's."""

    config: BartConfig
    num_heads: int
    cross: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        batch: Batch,
        mask: Mask | None,
        *,
        encoder: jax.Array | None = None,
        deterministic: bool,
    ) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``."""
        cfg, width = self.config, self.config.d_model

        def project(x: jax.Array, name: str) -> jax.Array:
            return split_heads(
                dense(x, width, name=name, init=cfg.init), self.num_heads
            )

        def keys_and_values(x: jax.Array) -> tuple[jax.Array, jax.Array]:
            return project(x, "k_proj"), project(x, "v_proj")

        if self.cross:
            key, value = kept_in_cache(self, batch, encoder, keys_and_values)
        else:
            key, value = with_cache(self, batch, *keys_and_values(x))
        mixed = attend(
            project(x, "q_proj"),
            key,
            value,
            mask=mask,
            scale=(width // self.num_heads) ** -0.5,
            cross=self.cross,
            dropout_rate=cfg.attention_dropout,
            deterministic=deterministic,
        )
        return dense(merge_heads(mixed), width, name="out_proj", init=cfg.init)


class Block(nn.Module):
    """Self-attention, in the decoder attention to the encoder, MLP."""

    config: BartConfig
    causal: bool

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        batch: Batch,
        mask: Mask | None,
        *,
        encoder: jax.Array | None = None,
        deterministic: bool,
    ) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``."""
        cfg, options = self.config, {"deterministic": deterministic}
        side = "decoder" if self.causal else "encoder"
        num_heads = getattr(cfg, f"{side}_attention_heads")

        def mlp(x: jax.Array) -> jax.Array:
            num_wide = getattr(cfg, f"{side}_ffn_dim")
            wide = dense(x, num_wide, name="fc1", init=cfg.init)
            wide = activate(wide, cfg.activation_function)
            wide = dropout(wide, cfg.activation_dropout, deterministic=deterministic)
            return dense(wide, cfg.d_model, name="fc2", init=cfg.init)

        def add(x: jax.Array, norm_name: str, part: Any) -> jax.Array:
            norm = LayerNorm(EPS, name=norm_name)
            y = part(norm(x) if cfg.norm_first else x)
            y = x + dropout(y, cfg.dropout, deterministic=deterministic)
            return y if cfg.norm_first else norm(y)

        own = Attention(cfg, num_heads, name="self_attn")
        x = add(x, "self_attn_layer_norm", lambda x: own(x, batch, mask, **options))
        if self.causal:
            cross = Attention(cfg, num_heads, cross=True, name="encoder_attn")
            options_of_cross = {**options, "encoder": encoder}
            x = add(
                x,
                "encoder_attn_layer_norm",
                lambda x: cross(x, batch, padding_mask(batch), **options_of_cross),
            )
        return add(x, "final_layer_norm", mlp)


class Side(nn.Module):
    """The encoder, or the causal decoder."""

    config: BartConfig
    task: str
    causal: bool

    def setup(self) -> None:
        """Name the parts as the checkpoint does."""
        cfg, causal = self.config, self.causal
        if cfg.own_tables:
            num_words = cfg.target_vocab_size if causal else cfg.vocab_size
            self.embed_tokens = make_words(cfg, num_words)
        size = cfg.max_position_embeddings, cfg.d_model
        if cfg.sinusoidal:
            # transformers saves those of the bare model alone
            stored = self.task == "base"
            self.embed_positions = SinusoidalPositions(*size, stored=stored)
        else:
            self.embed_positions = LearnedPositions(*size, cfg.init)
        if cfg.norm_embeddings:
            self.layernorm_embedding = LayerNorm(EPS)
        self.layers = Blocks(lambda i: Block(cfg, causal, name=str(i)))
        if cfg.norm_first:
            self.layer_norm = LayerNorm(EPS)
        self.dropout = Dropout(cfg.dropout)

    def embed(
        self, table: Embed, ids: jax.Array, batch: Batch, *, deterministic: bool
    ) -> jax.Array:
        """Map ids ``[B, L]`` to ``[B, L, D]``."""
        cfg = self.config
        before = num_before(batch) if self.causal else 0
        check_length(ids.shape[1] + before, cfg.max_position_embeddings)
        x = table(ids)
        if cfg.scale_embedding:
            x = x * cfg.d_model**0.5
        positions = jnp.arange(ids.shape[1])
        if self.causal:
            positions = positions + first_position(batch) + before
        x = x + self.embed_positions(positions).astype(x.dtype)[None]
        if cfg.norm_embeddings:
            x = self.layernorm_embedding(x)
        return self.dropout(x, deterministic)

    def __call__(
        self, x: jax.Array, batch: Batch, blocks: range, **options: Any
    ) -> jax.Array:
        """Run the given blocks, and the norm behind the last one."""
        cfg, mask = self.config, padding_mask(batch)
        if self.causal:
            mask = causal_mask(
                batch, ids="decoder_input_ids", padding="decoder_attention_mask"
            )
        x = self.layers(x, blocks, batch, mask, **options)
        num_layers = cfg.decoder_layers if self.causal else cfg.encoder_layers
        if cfg.norm_first and num_layers - 1 in blocks:
            x = self.layer_norm(x)
        return x


class Backbone(nn.Module):
    """Everything but the head."""

    config: BartConfig
    task: str

    def setup(self) -> None:
        """Name the parts as the checkpoint does."""
        cfg = self.config
        if cfg.shares_words:
            self.shared = make_words(cfg, cfg.vocab_size)
        self.encoder = Side(cfg, self.task, causal=False)
        self.decoder = Side(cfg, self.task, causal=True)

    @property
    def tables(self) -> tuple[Embed, Embed]:
        """The words of the encoder and of the decoder.

        transformers keeps the shared table also where neither uses it.
        """
        if self.config.shares_words:
            _ = self.shared.embedding  # makes it
        if self.config.own_tables:
            return self.encoder.embed_tokens, self.decoder.embed_tokens
        return self.shared, self.shared

    def __call__(
        self, batch: Batch, hidden: Any, stages: Stages, *, deterministic: bool
    ) -> Hidden:
        """Run the stages below the head."""
        cfg = self.config
        num_layers = cfg.encoder_layers, cfg.decoder_layers
        stacks = Stacks(self.encoder, self.decoder, self.tables, num_layers)
        return stacks(batch, hidden, stages, deterministic=deterministic)

    def score_words(self, x: jax.Array) -> jax.Array:
        """Score ``[B, M, D]`` against the decoder's words: the tied output layer."""
        return self.tables[1].attend(x)


class Bart(EncoderDecoder):
    """BART, mBART or Marian with the head of a task; paths are the checkpoint's keys.

    ``final_logits_bias`` is a buffer of the checkpoint: added, and never trained.
    """

    config: BartConfig

    def num_layers_of_sides(self) -> tuple[int, int]:
        """The blocks of the encoder and of the decoder."""
        return self.config.encoder_layers, self.config.decoder_layers

    def prepare(self, batch: Batch) -> Batch:
        """Let the decoder read ``input_ids``, shifted, but in Marian."""
        return self.config.with_decoder_input(batch)

    def make_backbone(self) -> Backbone:
        """Everything but the head, under the checkpoint's name."""
        return Backbone(self.config, self.task, name="model")

    def classifier_init(self) -> Init:
        """As all matrices are drawn."""
        return self.config.init

    def score_words(self, x: jax.Array, backbone: Backbone) -> jax.Array:
        """Score every word: ``[B, M, D] -> [B, M, V]``."""
        cfg, num_words = self.config, self.config.target_vocab_size
        shape = (1, num_words)
        bias = self.param("final_logits_bias", nn.initializers.zeros, shape)
        if cfg.tie_word_embeddings:
            logits = backbone.score_words(x)
        else:
            logits = dense(x, num_words, name="lm_head", init=cfg.init, bias=False)
        return logits + along_last(jax.lax.stop_gradient(bias), logits)


# as fairseq saved it
BUFFERS = (r"(?:model\.)?(?:encoder|decoder)\.version",)


def make_family(model_type: str, prefix: str, **options: Any) -> Family:
    """The record of one of the three, whose classes begin with ``prefix``."""
    heads = {
        "base": f"{prefix}Model",
        "seq2seq_lm": f"{prefix}ForConditionalGeneration",
        "sequence_classification": f"{prefix}ForSequenceClassification",
        "question_answering": f"{prefix}ForQuestionAnswering",
    }
    defaults = {
        "heads": heads,
        "base_prefix": "model",
        "make_module": Bart,
        "depths": (
            (r"model/shared/.+", Place.EMBEDDINGS),
            (
                r"model/(?:encoder|decoder)/(?:embed_|layernorm_embedding).+",
                Place.EMBEDDINGS,
            ),
            (r"model/encoder/layers/(\d+)/.+", Place.BLOCK),
            (r"model/encoder/layer_norm/.+", Place.ENCODER_END),
            (r"model/decoder/layers/(\d+)/.+", Place.DECODER_BLOCK),
        ),
        "final_norm": r"model/decoder/layer_norm/.*",
        "head_rules": {
            "base": (),
            "seq2seq_lm": (r"lm_head/.*", r"final_logits_bias"),
            "sequence_classification": (r"classification_head/.*",),
            "question_answering": (r"qa_outputs/.*",),
        },
        "max_positions": limit_of_table,
        "tied_outputs": (
            (r"lm_head\.weight", r"shared\.weight"),
            (r"lm_head\.weight", r"decoder\.embed_tokens\.weight"),  # two tables
        ),
        "tied_words": TIED_WORDS,
        "buffers": BUFFERS,
        "shared_rules": (r"model/shared/.*", r"model/decoder/embed_tokens/.*"),
        "embedding_rules": (
            r"model/(?:shared|(?:encoder|decoder)/embed_tokens)/.*",
            r"final_logits_bias|lm_head/.*",
        ),
        "column_parallel": r"[qkv]_proj|fc1",
        "row_parallel": r"out_proj|fc2",
        "special_ids": {
            "decoder_start_token_id": "eos",
            "forced_eos_token_id": "eos",
        },
    }
    return Family(model_type=model_type, **{**defaults, **options})


# what older versions could choose, as BART has it
BART_ONLY: Mapping[str, tuple[Any, ...]] = {
    "normalize_before": (False,),
    "normalize_embedding": (True,),
    "add_final_layer_norm": (False,),
    "static_position_embeddings": (False,),
}


FAMILY = make_family(
    "bart",
    "Bart",
    config_from_dict=lambda config: read_config(BartConfig, config, BART_ONLY),
    variants={
        "bart-base": BartConfig(
            d_model=768,
            encoder_layers=6,
            encoder_ffn_dim=3072,
            encoder_attention_heads=12,
            decoder_layers=6,
            decoder_ffn_dim=3072,
            decoder_attention_heads=12,
            attention_dropout=0.1,
            activation_dropout=0.1,
        ),
        "bart-large": BartConfig(activation_dropout=0.1, attention_dropout=0.1),
    },
)
