# SPDX-License-Identifier: Apache-2.0
"""DeBERTa v2 and v3 as in Hugging Face checkpoints: an encoder that knows distances.

The module tree is that of transformers' ``DebertaV2ForMaskedLM`` and its siblings,
which mDeBERTa and DeBERTa-v3 use as well; ``share_att_key`` and ``pos_att_type`` say
how tokens look at distances, see `jft.models.disentangled`.

He et al. 2021, "DeBERTa: Decoding-enhanced BERT with disentangled attention", arXiv
2006.03654, and "DeBERTaV3", arXiv 2111.09543.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jft.models import bert, heads
from jft.models.attention import token_positions
from jft.models.bert_config import BUFFERS, OLD_KEYS
from jft.models.deberta_v2_config import DebertaV2Config, config_from_dict
from jft.models.depth import Place
from jft.models.disentangled import SelfAttention
from jft.models.dropout import Dropout, dropout
from jft.models.family import Family
from jft.models.layers import (
    Blocks,
    Embed,
    LayerNorm,
    activate,
    dense,
    ids_or,
)
from jft.models.masks import Mask
from jft.models.model import TextModel
from jft.models.packing import (
    HEADS_OF_TOKENS,
    is_packed,
    refuse_packed,
    same_text,
)
from jft.models.positions import check_length
from jft.models.stages import Stages
from jft.models.virtual_tokens import num_before
from jft.types import Batch


class Embeddings(nn.Module):
    """Words and, where the config has them, positions and token types, normed."""

    config: DebertaV2Config

    def setup(self) -> None:
        """Make the tables; the words' is also the tied output layer."""
        cfg = self.config
        width, init = cfg.word_width, cfg.init
        self.word_embeddings = Embed(cfg.vocab_size, width, init, cfg.pad_token_id)
        if cfg.position_biased_input:
            self.position_embeddings = Embed(cfg.max_position_embeddings, width, init)
        if cfg.type_vocab_size:
            self.token_type_embeddings = Embed(cfg.type_vocab_size, width, init)
        if width != cfg.hidden_size:
            self.embed_proj = nn.Dense(
                cfg.hidden_size, use_bias=False, kernel_init=init
            )
        self.LayerNorm = LayerNorm(cfg.layer_norm_eps)
        self.dropout = Dropout(cfg.hidden_dropout_prob)

    def __call__(self, batch: Batch, *, deterministic: bool) -> jax.Array:
        """Map ids ``[B, L]`` to ``[B, L, D]``, zero at padding."""
        cfg = self.config
        length = batch["input_ids"].shape[1]
        x = self.word_embeddings(jnp.asarray(batch["input_ids"]))
        if cfg.position_biased_input:
            check_length(length + num_before(batch), cfg.max_position_embeddings)
            x = x + self.position_embeddings(token_positions(batch))
        if cfg.type_vocab_size:
            x = x + self.token_type_embeddings(ids_or(batch, "token_type_ids", 0))
        if cfg.word_width != cfg.hidden_size:
            x = self.embed_proj(x)
        x = at_real_tokens(self.LayerNorm(x), batch)
        return self.dropout(x, deterministic)


def at_real_tokens(x: jax.Array, batch: Batch) -> jax.Array:
    """Set ``[B, L, D]`` to zero at padding."""
    real = real_tokens(batch)
    return x if real is None else x * real.astype(x.dtype)[..., None]


def real_tokens(batch: Batch) -> jax.Array | None:
    """Say which tokens are no padding, ``[B, L]``; None: all."""
    if is_packed(batch):
        return jnp.asarray(batch["segment_ids"]) > 0
    if "attention_mask" not in batch:
        return None
    return jnp.asarray(batch["attention_mask"]).astype(bool)


def pair_mask(batch: Batch) -> Mask | None:
    """Real tokens look at real tokens; padding at all alike."""
    if is_packed(batch):
        return Mask(allowed=same_text(batch))
    real = real_tokens(batch)
    if real is None:
        return None
    pairs = jnp.logical_and(real[:, None, :, None], real[:, None, None, :])
    return Mask(allowed=pairs)


class Attention(nn.Module):
    """Self-attention and its output."""

    config: DebertaV2Config

    @nn.compact
    def __call__(
        self, x: jax.Array, table: Any, mask: Any, *, deterministic: bool
    ) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``."""
        attention = SelfAttention(self.config, name="self")
        mixed = attention(x, table, mask, deterministic=deterministic)
        output = bert.Output(self.config, name="output")
        return output(mixed, x, deterministic=deterministic)


class Block(nn.Module):
    """Attention, then the MLP, each added and normed after."""

    config: DebertaV2Config

    @nn.compact
    def __call__(
        self, x: jax.Array, table: Any, mask: Any, *, deterministic: bool
    ) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``."""
        attention = Attention(self.config, name="attention")
        x = attention(x, table, mask, deterministic=deterministic)
        wide = bert.Intermediate(self.config, name="intermediate")(x)
        output = bert.Output(self.config, name="output")
        return output(wide, x, deterministic=deterministic)


class ConvLayer(nn.Module):
    """What a convolution of the first block's input adds to its output."""

    config: DebertaV2Config

    @nn.compact
    def __call__(
        self, x: jax.Array, residual: jax.Array, batch: Batch, *, deterministic: bool
    ) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``, zero at padding."""
        cfg = self.config
        conv = nn.Conv(
            cfg.hidden_size,
            (cfg.conv_kernel_size,),
            padding=cfg.conv_kernel_size // 2,
            feature_group_count=cfg.conv_groups,
            kernel_init=cfg.init,
            name="conv",
        )
        x = dropout(conv(x), cfg.hidden_dropout_prob, deterministic=deterministic)
        x = residual + activate(x, cfg.conv_act)
        return at_real_tokens(LayerNorm(cfg.layer_norm_eps, name="LayerNorm")(x), batch)


class Encoder(nn.Module):
    """The blocks, and what they share: the table of distances."""

    config: DebertaV2Config

    @nn.compact
    def __call__(
        self, x: jax.Array, batch: Batch, blocks: range, *, deterministic: bool
    ) -> jax.Array:
        """Run the given blocks."""
        cfg, table, mask = self.config, None, pair_mask(batch)
        if cfg.relative_attention:
            width, init = cfg.hidden_size, cfg.init
            table = Embed(2 * cfg.span, width, init, name="rel_embeddings").embedding
            if cfg.normed:
                table = LayerNorm(cfg.layer_norm_eps, name="LayerNorm")(table)
        layers = Blocks(lambda i: Block(cfg, name=str(i)), name="layer")
        if cfg.conv_kernel_size:
            refuse_packed(batch, "conv_kernel_size mixes a token with its neighbours")
        if cfg.conv_kernel_size and 0 in blocks:
            first = layers(x, range(1), table, mask, deterministic=deterministic)
            conv = ConvLayer(cfg, name="conv")
            x = conv(x, first, batch, deterministic=deterministic)
            blocks = blocks[1:]
        return layers(x, blocks, table, mask, deterministic=deterministic)


class Backbone(nn.Module):
    """Everything but the head."""

    config: DebertaV2Config

    def setup(self) -> None:
        """Name the parts as the checkpoint does."""
        self.embeddings = Embeddings(self.config)
        self.encoder = Encoder(self.config)

    def __call__(
        self, batch: Batch, hidden: Any, stages: Stages, *, deterministic: bool
    ) -> jax.Array:
        """Run the stages below the head: ``[B, L, D]``."""
        if stages.embed:
            hidden = self.embeddings(batch, deterministic=deterministic)
        return self.encoder(hidden, batch, stages.blocks, deterministic=deterministic)

    def score_words(self, x: jax.Array) -> jax.Array:
        """Score ``[B, L, D]`` against every word: the tied output layer."""
        return self.embeddings.word_embeddings.attend(x)


class Pooler(nn.Module):
    """The first token, mapped once more."""

    config: DebertaV2Config

    @nn.compact
    def __call__(self, hidden: jax.Array, *, deterministic: bool) -> jax.Array:
        """Map ``[B, L, D] -> [B, D]``."""
        cfg = self.config
        x = dropout(hidden[:, 0], cfg.pooler_dropout, deterministic=deterministic)
        x = dense(x, cfg.hidden_size, name="dense", init=cfg.init)
        return activate(x, cfg.pooler_hidden_act)


def transform(x: jax.Array, cfg: DebertaV2Config) -> jax.Array:
    """Dense, activation and norm, to the width of the words."""
    x = dense(x, cfg.word_width, name="dense", init=cfg.init)
    x = activate(x, cfg.hidden_act)
    return LayerNorm(cfg.layer_norm_eps, name="LayerNorm")(x)


class Transform(nn.Module):
    """Holds the transform of the legacy head."""

    config: DebertaV2Config

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, E]``."""
        return transform(x, self.config)


class Predictions(nn.Module):
    """The masked-word head; only the legacy one can be untied from the words."""

    config: DebertaV2Config

    @nn.compact
    def __call__(
        self, x: jax.Array, score_words: Callable[[jax.Array], jax.Array]
    ) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, V]``."""
        cfg = self.config
        x = Transform(cfg, name="transform")(x) if cfg.legacy else transform(x, cfg)
        tied = None if cfg.legacy and not cfg.tie_word_embeddings else score_words
        return heads.score_masked_words(self, x, tied, cfg.vocab_size, init=cfg.init)


class MaskedLMHead(nn.Module):
    """Holds the predictions under the checkpoint's name."""

    config: DebertaV2Config

    @nn.compact
    def __call__(
        self, x: jax.Array, score_words: Callable[[jax.Array], jax.Array]
    ) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, V]``."""
        name = "predictions" if self.config.legacy else "lm_head"
        return Predictions(self.config, name=name)(x, score_words)


class DebertaV2(TextModel):
    """DeBERTa with the head of a task; parameter paths are the checkpoint's keys."""

    config: DebertaV2Config

    def make_backbone(self) -> Backbone:
        """Everything but the head, under the checkpoint's name."""
        return Backbone(self.config, name="deberta")

    def answer(
        self, x: jax.Array, batch: Batch, backbone: Backbone, *, deterministic: bool
    ) -> Any:
        """What the head makes of ``[B, L, D]``, see `jft.models.heads`."""
        cfg, task = self.config, self.task
        if task == "masked_lm":
            name = "cls" if cfg.legacy else "lm_predictions"
            return MaskedLMHead(cfg, name=name)(x, backbone.score_words)
        if task == "base":
            return {"last_hidden_state": x}
        if task == "question_answering":
            return heads.mark_span(x, init=cfg.init)
        rate = cfg.hidden_dropout_prob
        if task == "sequence_classification":
            x = Pooler(cfg, name="pooler")(x, deterministic=deterministic)
            rate = cfg.head_dropout
        return heads.classify_tokens(
            x, cfg.num_labels, rate=rate, deterministic=deterministic, init=cfg.init
        )


def _variant(width: int, layers: int, **changes: Any) -> DebertaV2Config:
    return DebertaV2Config(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
        position_biased_input=False,
        relative_attention=True,
        position_buckets=256,
        pos_att_type="p2c|c2p",
        share_att_key=True,
        norm_rel_ebd="layer_norm",
        **changes,
    )


FAMILY = Family(
    model_type="deberta-v2",
    heads={
        "base": "DebertaV2Model",
        "masked_lm": "DebertaV2ForMaskedLM",
        "token_classification": "DebertaV2ForTokenClassification",
        "question_answering": "DebertaV2ForQuestionAnswering",
        "sequence_classification": "DebertaV2ForSequenceClassification",
    },
    base_prefix="deberta",
    config_from_dict=config_from_dict,
    make_module=DebertaV2,
    depths=(
        (
            r"deberta/(?:embeddings|encoder/(?:rel_embeddings|LayerNorm))/.+",
            Place.EMBEDDINGS,
        ),
        (r"deberta/encoder/conv/.+", Place.BLOCK),  # of the first
        (r"deberta/encoder/layer/(\d+)/.+", Place.BLOCK),
        (r"pooler/.+", Place.HEAD),
    ),
    head_rules={**heads.HEAD_RULES, "masked_lm": (r"(?:cls|lm_predictions)/.*",)},
    # kept with another classifier, and drawn where a checkpoint has no classifier
    optional_rules={"sequence_classification": (r"pooler/.*",)},
    shared_rules=(
        r"deberta/embeddings/word_embeddings/.*",
        r"deberta/encoder/(?:rel_embeddings|LayerNorm)/.*",
    ),
    embedding_rules=(
        r"deberta/embeddings/word_embeddings/.*",
        r"cls/predictions/(?:bias|decoder/.*)",
        r"lm_predictions/lm_head/bias",
    ),
    column_parallel=r"(?:query|key|value)_proj|intermediate/dense",
    row_parallel=r"output/dense",
    old_keys=OLD_KEYS,
    tied_outputs=bert.TIED_OUTPUTS,
    buffers=BUFFERS,
    # its convolution would mix the last token of a text with the next text's first
    packed_heads=lambda config: () if config.conv_kernel_size else HEADS_OF_TOKENS,
    max_positions=lambda config: (
        config.max_position_embeddings if config.position_biased_input else None
    ),
    variants={
        "deberta-v3-xsmall": _variant(384, 12),
        "deberta-v3-small": _variant(768, 6),
        "deberta-v3-base": _variant(768, 12),
        "deberta-v3-large": _variant(1024, 24),
        "mdeberta-v3-base": _variant(768, 12, vocab_size=251000),
        "deberta-v2-xlarge": _variant(1536, 24, conv_kernel_size=3, conv_act="gelu"),
        "deberta-v2-xxlarge": _variant(1536, 48, conv_kernel_size=3, conv_act="gelu"),
    },
)
