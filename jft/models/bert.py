# SPDX-License-Identifier: Apache-2.0
"""BERT, and every checkpoint in its layout: MiniLM and other sentence encoders.

Stage 0 embeds words, positions and token types; stage i + 1 is block i; the last
stage is the pooler and the head. RoBERTa and ELECTRA build on these modules.

Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers", arXiv
1810.04805.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jft.models import heads
from jft.models.attention import padding_mask, self_attention, token_positions
from jft.models.bert_config import (
    BUFFERS,
    OLD_KEYS,
    VARIANTS,
    WORDS,
    BertConfig,
    read_config,
)
from jft.models.depth import Place
from jft.models.dropout import Dropout, dropout
from jft.models.family import Family, limit_of_table
from jft.models.layers import (
    Blocks,
    Embed,
    Init,
    LayerNorm,
    activate,
    dense,
    ids_or,
)
from jft.models.masks import Mask
from jft.models.model import TextModel
from jft.models.packing import first_tokens, heads_of_encoders, tokens_read
from jft.models.positions import check_length
from jft.models.stages import Stages
from jft.models.virtual_tokens import num_before
from jft.types import Batch


class Embeddings(nn.Module):
    """Words, positions and, where the config has any, token types; summed, normed."""

    config: BertConfig
    init_positions: Init | None = None  # as all matrices

    def setup(self) -> None:
        """Make the tables; the words' is also the tied output layer."""
        cfg = self.config
        width, init = cfg.hidden_size, cfg.init
        self.word_embeddings = Embed(cfg.vocab_size, width, init, cfg.pad_token_id)
        self.position_embeddings = Embed(
            cfg.max_position_embeddings,
            width,
            self.init_positions or init,
            self.row_of_padding(),
        )
        if cfg.type_vocab_size:
            self.token_type_embeddings = Embed(cfg.type_vocab_size, width, init)
        self.LayerNorm = LayerNorm(cfg.layer_norm_eps)
        self.dropout = Dropout(cfg.hidden_dropout_prob)

    def row_of_padding(self) -> int | None:
        """The row of the table of positions that padding has; None: as any token."""
        return None

    def rows_of_positions(self, batch: Batch) -> jax.Array:
        """The rows of the table of positions: ``[B or 1, L]``.

        Raises:
          InputError: for a text of more tokens than there are.
        """
        length = batch["input_ids"].shape[1] + num_before(batch)
        check_length(length, self.config.max_position_embeddings)
        return token_positions(batch)

    def __call__(self, batch: Batch, *, deterministic: bool) -> jax.Array:
        """Map ids ``[B, L]`` to ``[B, L, D]``."""
        x = self.word_embeddings(jnp.asarray(batch["input_ids"]))
        if self.config.type_vocab_size:
            x = x + self.token_type_embeddings(ids_or(batch, "token_type_ids", 0))
        x = x + self.position_embeddings(self.rows_of_positions(batch))
        return self.dropout(self.LayerNorm(x), deterministic)


class SelfAttention(nn.Module):
    """Queries, keys and values of the tokens, and the mix."""

    config: BertConfig
    num_read: int | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: Mask | None,
        first: jax.Array | None,
        *,
        deterministic: bool,
    ) -> jax.Array:
        """Map ``[B, L, D]`` to the first ``num_read`` tokens, ``[B, num_read, D]``."""
        cfg = self.config
        return self_attention(
            x,
            mask,
            num_heads=cfg.num_attention_heads,
            init=cfg.init,
            dropout_rate=cfg.attention_probs_dropout_prob,
            deterministic=deterministic,
            num_read=self.num_read,
            first=first,
        )


class Output(nn.Module):
    """Project to the width of the residual stream, drop out, add and norm."""

    config: BertConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, residual: jax.Array, *, deterministic: bool
    ) -> jax.Array:
        """Map ``[B, L, F] -> [B, L, D]``."""
        cfg = self.config
        x = dense(x, cfg.hidden_size, name="dense", init=cfg.init)
        x = dropout(x, cfg.hidden_dropout_prob, deterministic=deterministic)
        return LayerNorm(cfg.layer_norm_eps, name="LayerNorm")(x + residual)


class Attention(nn.Module):
    """Self-attention and its output."""

    config: BertConfig
    num_read: int | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: Mask | None,
        first: jax.Array | None,
        *,
        deterministic: bool,
    ) -> jax.Array:
        """Map ``[B, L, D]`` to the first ``num_read`` tokens, ``[B, num_read, D]``."""
        attention = SelfAttention(self.config, self.num_read, name="self")
        mixed = attention(x, mask, first, deterministic=deterministic)
        output = Output(self.config, name="output")
        residual = tokens_read(x, self.num_read, first)
        return output(mixed, residual, deterministic=deterministic)


class Intermediate(nn.Module):
    """The wide layer of the MLP."""

    config: BertConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, F]``."""
        cfg = self.config
        x = dense(x, cfg.intermediate_size, name="dense", init=cfg.init)
        return activate(x, cfg.hidden_act)


class Block(nn.Module):
    """Attention, then the MLP, each added and normed after."""

    config: BertConfig
    num_read: int | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: Mask | None,
        first: jax.Array | None,
        *,
        deterministic: bool,
    ) -> jax.Array:
        """Map ``[B, L, D]`` to the first ``num_read`` tokens, ``[B, num_read, D]``."""
        attention = Attention(self.config, self.num_read, name="attention")
        x = attention(x, mask, first, deterministic=deterministic)
        wide = Intermediate(self.config, name="intermediate")(x)
        output = Output(self.config, name="output")
        return output(wide, x, deterministic=deterministic)


class Encoder(nn.Module):
    """The blocks, under the checkpoint's names."""

    config: Any
    make_block: Callable[..., nn.Module] = Block

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: Mask | None,
        first: jax.Array | None,
        stages: Stages,
        *,
        deterministic: bool,
    ) -> jax.Array:
        """Run the blocks of the stages."""

        def make(i: int) -> nn.Module:
            return self.make_block(self.config, stages.read_of(i), name=str(i))

        layers = Blocks(make, name="layer")
        return layers(x, stages.blocks, mask, first, deterministic=deterministic)


class Pooler(nn.Module):
    """The first token, mapped once more."""

    config: BertConfig

    @nn.compact
    def __call__(self, hidden: jax.Array) -> jax.Array:
        """Map ``[B, L, D] -> [B, D]``."""
        cfg = self.config
        first = dense(hidden[:, 0], cfg.hidden_size, name="dense", init=cfg.init)
        return jnp.tanh(first)


class Backbone(nn.Module):
    """Everything but the head; ``pooled`` says whether there is a pooler."""

    config: BertConfig
    pooled: bool
    make_embeddings: Callable[[Any], nn.Module] = Embeddings

    def setup(self) -> None:
        """Name the parts as the checkpoint does."""
        self.embeddings = self.make_embeddings(self.config)
        self.encoder = Encoder(self.config)
        if self.pooled:
            self.pooler = Pooler(self.config)

    def __call__(
        self, batch: Batch, hidden: Any, stages: Stages, *, deterministic: bool
    ) -> jax.Array:
        """Run the stages below the head: ``[B, L, D]``."""
        if stages.embed:
            hidden = self.embed(batch, deterministic=deterministic)
        mask = padding_mask(batch)
        return self.encoder(
            hidden, mask, first_tokens(batch), stages, deterministic=deterministic
        )

    def embed(self, batch: Batch, *, deterministic: bool) -> jax.Array:
        """Map ids ``[B, L]`` to ``[B, L, D]``."""
        return self.embeddings(batch, deterministic=deterministic)

    def pool(self, hidden: jax.Array) -> jax.Array:
        """Map ``[B, L, D] -> [B, D]``."""
        return self.pooler(hidden)

    def score_words(self, x: jax.Array) -> jax.Array:
        """Score ``[B, L, D]`` against every word: the tied output layer."""
        return self.embeddings.word_embeddings.attend(x)


class Transform(nn.Module):
    """Dense, activation and norm before a masked word is predicted."""

    config: BertConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``."""
        cfg = self.config
        x = dense(x, cfg.hidden_size, name="dense", init=cfg.init)
        x = activate(x, cfg.hidden_act)
        return LayerNorm(cfg.layer_norm_eps, name="LayerNorm")(x)


class Predictions(nn.Module):
    """The masked-word head."""

    config: BertConfig

    @nn.compact
    def __call__(self, x: jax.Array, backbone: Backbone) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, V]``."""
        cfg = self.config
        x = Transform(cfg, name="transform")(x)
        tied = backbone.score_words if cfg.tie_word_embeddings else None
        return heads.score_masked_words(self, x, tied, cfg.vocab_size, init=cfg.init)


class MaskedLMHead(nn.Module):
    """Holds the predictions under the checkpoint's name."""

    config: BertConfig

    @nn.compact
    def __call__(self, x: jax.Array, backbone: Backbone) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, V]``."""
        return Predictions(self.config, name="predictions")(x, backbone)


class Bert(TextModel):
    """BERT with the head of a task; its parameter paths are the checkpoint's keys."""

    config: BertConfig

    heads_of_first_token = ("sequence_classification",)  # by the pooler

    def make_backbone(self) -> Backbone:
        """Everything but the head, under the checkpoint's name."""
        return Backbone(self.config, self.task in POOLED, name="bert")

    def answer(
        self, x: jax.Array, batch: Batch, backbone: Backbone, *, deterministic: bool
    ) -> Any:
        """What the head makes of ``[B, L, D]``, see `jft.models.heads`."""
        cfg, task = self.config, self.task
        if task == "masked_lm":
            return MaskedLMHead(cfg, name="cls")(x, backbone)
        if task == "base":
            return {"last_hidden_state": x, "pooler_output": backbone.pool(x)}
        if task == "question_answering":
            return heads.mark_span(x, init=cfg.init)
        if task == "sequence_classification":
            x = backbone.pool(x)
        return heads.classify_tokens(
            x,
            cfg.num_labels,
            rate=cfg.head_dropout,
            deterministic=deterministic,
            init=cfg.init,
        )


POOLED = ("base", "sequence_classification")
TIED_OUTPUTS = (
    (r"cls\.predictions\.decoder\.weight", WORDS),
    (r"cls\.predictions\.decoder\.bias", r"cls\.predictions\.bias"),
)

FAMILY = Family(
    model_type="bert",
    heads={
        "base": "BertModel",
        "masked_lm": "BertForMaskedLM",
        "sequence_classification": "BertForSequenceClassification",
        "token_classification": "BertForTokenClassification",
        "question_answering": "BertForQuestionAnswering",
    },
    base_prefix="bert",
    config_from_dict=lambda config: read_config(BertConfig, config),
    make_module=Bert,
    depths=(
        (r"bert/embeddings/.+", Place.EMBEDDINGS),
        (r"bert/encoder/layer/(\d+)/.+", Place.BLOCK),
        (r"bert/pooler/.+", Place.HEAD),
    ),
    head_rules={**heads.HEAD_RULES, "masked_lm": (r"cls/.*",)},
    optional_rules=dict.fromkeys(POOLED, (r"bert/pooler/.*",)),
    shared_rules=(r"bert/embeddings/word_embeddings/.*",),
    embedding_rules=(
        r"bert/embeddings/word_embeddings/.*",
        r"cls/predictions/(?:bias|decoder/.*)",
    ),
    column_parallel=r"query|key|value|intermediate/dense",
    row_parallel=r"output/dense",
    max_positions=limit_of_table,
    packed_heads=heads_of_encoders,
    old_keys=OLD_KEYS,
    tied_outputs=TIED_OUTPUTS,
    buffers=BUFFERS,
    variants=VARIANTS,
)
