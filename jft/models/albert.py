# SPDX-License-Identifier: Apache-2.0
"""ALBERT: narrow embeddings, and layers that share parameters.

A stage is a *group*, which owns parameters and runs several layers with them: stage 0
embeds, stage g + 1 is group g with all its layers, the last stage is the pooler and the
head. The published models have one group, so one depth for all of their blocks.

Lan et al. 2020, "ALBERT: A Lite BERT for Self-supervised Learning of Language
Representations", arXiv 1909.11942.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jft.models import heads
from jft.models.attention import padding_mask, self_attention
from jft.models.bert import Embeddings
from jft.models.bert_config import BUFFERS, OLD_KEYS, WORDS, BertConfig, read_config
from jft.models.depth import Place
from jft.models.dropout import dropout
from jft.models.family import Family, limit_of_table
from jft.models.layers import Blocks, LayerNorm, activate, dense
from jft.models.masks import Mask
from jft.models.model import TextModel
from jft.models.packing import heads_of_tokens
from jft.models.stages import Stages
from jft.types import Batch, InputError


@dataclass(frozen=True, kw_only=True)
class AlbertConfig(BertConfig):
    """BERT's fields with ALBERT's defaults, and how layers share.

    ``classifier_dropout`` is BERT's; ALBERT reads ``classifier_dropout_prob``.
    """

    vocab_size: int = 30000
    embedding_size: int = 128
    hidden_size: int = 4096
    num_hidden_groups: int = 1
    num_attention_heads: int = 64
    intermediate_size: int = 16384
    inner_group_num: int = 1
    hidden_act: str = "gelu_new"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    classifier_dropout_prob: float = 0.1

    @property
    def head_dropout(self) -> float:
        """The rate before a classifier."""
        return self.classifier_dropout_prob

    def num_runs(self, group: int) -> int:
        """How often a group runs: layers are dealt out evenly, in order.

        >>> config = AlbertConfig(num_hidden_layers=7, num_hidden_groups=5)
        >>> [config.num_runs(group) for group in range(5)]
        [2, 1, 2, 1, 1]
        """
        layers_per_group = self.num_hidden_layers / self.num_hidden_groups
        groups = [int(i / layers_per_group) for i in range(self.num_hidden_layers)]
        return groups.count(group)


def config_from_dict(config: Mapping[str, Any]) -> AlbertConfig:
    """Read config.json.

    Raises:
      InputError: names the field whose value this model cannot honour.
    """
    result = read_config(AlbertConfig, config)
    if result.num_hidden_groups > result.num_hidden_layers:
        raise InputError(
            f"config.json: num_hidden_groups is {result.num_hidden_groups}; it must "
            f"be at most num_hidden_layers = {result.num_hidden_layers}."
        )
    return result


class Attention(nn.Module):
    """Self-attention and its output, added and normed."""

    config: AlbertConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: Mask | None, *, deterministic: bool
    ) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``."""
        cfg = self.config
        mixed = self_attention(
            x,
            mask,
            num_heads=cfg.num_attention_heads,
            init=cfg.init,
            dropout_rate=cfg.attention_probs_dropout_prob,
            deterministic=deterministic,
        )
        mixed = dense(mixed, cfg.hidden_size, name="dense", init=cfg.init)
        mixed = dropout(mixed, cfg.hidden_dropout_prob, deterministic=deterministic)
        return LayerNorm(cfg.layer_norm_eps, name="LayerNorm")(x + mixed)


class Layer(nn.Module):
    """Attention, then an MLP without dropout, each added and normed after."""

    config: AlbertConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: Mask | None, *, deterministic: bool
    ) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``."""
        cfg = self.config
        attention = Attention(cfg, name="attention")
        x = attention(x, mask, deterministic=deterministic)
        wide = dense(x, cfg.intermediate_size, name="ffn", init=cfg.init)
        wide = activate(wide, cfg.hidden_act)
        narrow = dense(wide, cfg.hidden_size, name="ffn_output", init=cfg.init)
        norm = LayerNorm(cfg.layer_norm_eps, name="full_layer_layer_norm")
        return norm(narrow + x)


class Group(nn.Module):
    """Layers that run ``num_runs`` times, each time with the same parameters."""

    config: AlbertConfig
    num_runs: int

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: Mask | None, *, deterministic: bool
    ) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``."""
        cfg = self.config
        layers = Blocks(lambda i: Layer(cfg, name=str(i)), name="albert_layers")
        for _ in range(self.num_runs):
            x = layers(x, range(cfg.inner_group_num), mask, deterministic=deterministic)
        return x


class Encoder(nn.Module):
    """From the embeddings' width to the layers', and the groups."""

    config: AlbertConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: Any, stages: Stages, *, deterministic: bool
    ) -> jax.Array:
        """Run the given stages; ``x`` is ``[B, L, E]`` if the first is among them."""
        cfg = self.config
        if stages.embed:
            name = "embedding_hidden_mapping_in"
            x = dense(x, cfg.hidden_size, name=name, init=cfg.init)
        groups = Blocks(
            lambda g: Group(cfg, cfg.num_runs(g), name=str(g)),
            name="albert_layer_groups",
        )
        return groups(x, stages.blocks, mask, deterministic=deterministic)


class Backbone(nn.Module):
    """Everything but the head; ``pooled`` says whether there is a pooler."""

    config: AlbertConfig
    pooled: bool

    def setup(self) -> None:
        """Name the parts as the checkpoint does."""
        cfg = self.config
        self.embeddings = Embeddings(replace(cfg, hidden_size=cfg.embedding_size))
        self.encoder = Encoder(cfg)
        if self.pooled:
            self.pooler = nn.Dense(cfg.hidden_size, kernel_init=cfg.init)

    def __call__(
        self, batch: Batch, hidden: Any, stages: Stages, *, deterministic: bool
    ) -> jax.Array:
        """Run the stages below the head: ``[B, L, D]``."""
        if stages.embed:
            hidden = self.embeddings(batch, deterministic=deterministic)
        mask = padding_mask(batch)
        return self.encoder(hidden, mask, stages, deterministic=deterministic)

    def pool(self, hidden: jax.Array) -> jax.Array:
        """Map the first token once more: ``[B, L, D] -> [B, D]``."""
        return jnp.tanh(self.pooler(hidden[:, 0]))

    def score_words(self, x: jax.Array) -> jax.Array:
        """Score ``[B, L, E]`` against every word: the tied output layer."""
        return self.embeddings.word_embeddings.attend(x)


class Predictions(nn.Module):
    """The masked-word head, back at the width of the embeddings."""

    config: AlbertConfig

    @nn.compact
    def __call__(self, x: jax.Array, backbone: Backbone) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, V]``."""
        cfg = self.config
        x = dense(x, cfg.embedding_size, name="dense", init=cfg.init)
        x = activate(x, cfg.hidden_act)
        x = LayerNorm(cfg.layer_norm_eps, name="LayerNorm")(x)
        tied = backbone.score_words if cfg.tie_word_embeddings else None
        return heads.score_masked_words(self, x, tied, cfg.vocab_size, init=cfg.init)


class Albert(TextModel):
    """ALBERT with the head of a task; parameter paths are the checkpoint's keys."""

    config: AlbertConfig

    def num_layers(self) -> int:
        """The groups of layers: each is a stage."""
        return self.config.num_hidden_groups

    def make_backbone(self) -> Backbone:
        """Everything but the head, under the checkpoint's name."""
        return Backbone(self.config, self.task in POOLED, name="albert")

    def answer(
        self, x: jax.Array, batch: Batch, backbone: Backbone, *, deterministic: bool
    ) -> Any:
        """What the head makes of ``[B, L, D]``, see `jft.models.heads`."""
        cfg, task = self.config, self.task
        if task == "masked_lm":
            return Predictions(cfg, name="predictions")(x, backbone)
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


def _variant(width: int, layers: int, heads: int) -> AlbertConfig:
    return AlbertConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
    )


FAMILY = Family(
    model_type="albert",
    heads={
        "base": "AlbertModel",
        "masked_lm": "AlbertForMaskedLM",
        "sequence_classification": "AlbertForSequenceClassification",
        "token_classification": "AlbertForTokenClassification",
        "question_answering": "AlbertForQuestionAnswering",
    },
    base_prefix="albert",
    config_from_dict=config_from_dict,
    make_module=Albert,
    depths=(  # those of groups, whose layers share
        (r"albert/embeddings/.+", Place.EMBEDDINGS),
        (r"albert/encoder/embedding_hidden_mapping_in/.+", Place.EMBEDDINGS),
        (r"albert/encoder/albert_layer_groups/(\d+)/.+", Place.BLOCK),
        (r"albert/pooler/.+", Place.HEAD),
    ),
    head_rules={**heads.HEAD_RULES, "masked_lm": (r"predictions/.*",)},
    optional_rules=dict.fromkeys(POOLED, (r"albert/pooler/.*",)),
    shared_rules=(r"albert/embeddings/word_embeddings/.*",),
    embedding_rules=(
        r"albert/embeddings/word_embeddings/.*",
        r"predictions/(?:bias|decoder/.*)",
    ),
    column_parallel=r"query|key|value|ffn",
    row_parallel=r"attention/dense|ffn_output",
    max_positions=limit_of_table,
    packed_heads=heads_of_tokens,
    old_keys=OLD_KEYS,
    tied_outputs=(
        (r"predictions\.decoder\.weight", WORDS),
        (r"predictions\.decoder\.bias", r"predictions\.bias"),
    ),
    buffers=BUFFERS,
    variants={
        "albert-base-v2": _variant(768, 12, 12),
        "albert-large-v2": _variant(1024, 24, 16),
        "albert-xlarge-v2": _variant(2048, 24, 16),
        "albert-xxlarge-v2": _variant(4096, 12, 64),
    },
)
