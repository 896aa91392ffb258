# SPDX-License-Identifier: Apache-2.0
"""RoBERTa and XLM-RoBERTa: BERT's blocks, positions that skip padding, other heads.

Positions are counted over the tokens that are no padding and start behind the padding
id: ``roberta-base`` has 514 of them for 512 tokens.

Liu et al. 2019, "RoBERTa: A Robustly Optimized BERT Pretraining Approach", arXiv
1907.11692; Conneau et al. 2020, "Unsupervised Cross-lingual Representation Learning at
Scale", arXiv 1911.02116.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jft.models import heads
from jft.models.arrays import along_last
from jft.models.attention import token_positions
from jft.models.before import num_before
from jft.models.bert import Backbone
from jft.models.bert_config import ENCODER_ONLY, BertConfig
from jft.models.dropout import Dropout, dropout
from jft.models.family import Family, make_layer_index
from jft.models.fields import check_heads, check_token_id, read_fields
from jft.models.layers import (
    Embed,
    Init,
    LayerNorm,
    activate,
    dense,
    ids_or,
)
from jft.models.model import TextModel
from jft.models.packing import heads_of_encoders, is_packed
from jft.models.positions import check_length
from jft.types import Batch, LayerIndex


@dataclass(frozen=True, kw_only=True)
class RobertaConfig(BertConfig):
    """BERT's fields with RoBERTa's defaults; positions start behind the padding id."""

    vocab_size: int = 50265
    pad_token_id: int = 1


@dataclass(frozen=True, kw_only=True)
class XlmRobertaConfig(RobertaConfig):
    """The same with XLM-RoBERTa's default vocabulary, which is BERT's."""

    vocab_size: int = 30522


def config_from_dict(
    config: Mapping[str, Any], cls: type[RobertaConfig] = RobertaConfig
) -> RobertaConfig:
    """Read config.json.

    Raises:
      InputError: names the field whose value this model cannot honour.
    """
    result = read_fields(cls, config, only=ENCODER_ONLY)
    width, num_heads = result.hidden_size, result.num_attention_heads
    check_heads("hidden_size", width, "num_attention_heads", num_heads)
    for rows in (result.vocab_size, result.max_position_embeddings):
        check_token_id("pad_token_id", result.pad_token_id, rows)
    return result


class Embeddings(nn.Module):
    """Words, positions and token types, summed and normed."""

    config: RobertaConfig

    def setup(self) -> None:
        """Make the tables; the words' is also the tied output layer."""
        cfg = self.config
        width, init, pad = cfg.hidden_size, cfg.init, cfg.pad_token_id
        self.word_embeddings = Embed(cfg.vocab_size, width, init, pad)
        self.position_embeddings = Embed(cfg.max_position_embeddings, width, init, pad)
        self.token_type_embeddings = Embed(cfg.type_vocab_size, width, init)
        self.LayerNorm = LayerNorm(cfg.layer_norm_eps)
        self.dropout = Dropout(cfg.hidden_dropout_prob)

    def __call__(self, batch: Batch, *, deterministic: bool) -> jax.Array:
        """Map ids ``[B, L]`` to ``[B, L, D]``."""
        ids = jnp.asarray(batch["input_ids"], jnp.int32)
        length = ids.shape[1] + num_before(batch)
        check_length(length, num_positions(self.config))
        x = self.word_embeddings(ids)
        x = x + self.token_type_embeddings(ids_or(batch, "token_type_ids", 0))
        x = x + self.position_embeddings(rows_of_positions(batch, self.config))
        return self.dropout(self.LayerNorm(x), deterministic)


def num_positions(config: RobertaConfig) -> int:
    """Tokens that have a position: those up to the padding id's have none."""
    return config.max_position_embeddings - config.pad_token_id - 1


def rows_of_positions(batch: Batch, config: RobertaConfig) -> jax.Array:
    """The rows of the table of positions: ``[B, L]``.

    ``position_ids`` are such rows already, as in transformers; those of packed rows
    count from 0.
    """
    first = config.pad_token_id + 1 if is_packed(batch) else 0
    if "position_ids" in batch:
        return token_positions(batch) + first
    ids = jnp.asarray(batch["input_ids"], jnp.int32)
    return count_tokens(ids, config.pad_token_id, before=num_before(batch))


def count_tokens(ids: jax.Array, padding_id: int, *, before: int = 0) -> jax.Array:
    """Number the tokens from ``padding_id + 1`` on; padding is at ``padding_id``.

    ``before`` numbers are left out, see `jft.models.before`.

    >>> count_tokens(jnp.asarray([[1, 7, 8, 1, 9]]), 1).tolist()
    [[1, 2, 3, 1, 4]]
    """
    real = (ids != padding_id).astype(jnp.int32)
    return (jnp.cumsum(real, axis=1) + before) * real + padding_id


class ClassificationHead(nn.Module):
    """The first token through a hidden layer, with dropout before both products."""

    num_labels: int
    activation: str
    rate: float
    init: Init

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
        """Map ``[B, L, D] -> [B, C]``."""
        x = dropout(x[:, 0], self.rate, deterministic=deterministic)
        x = dense(x, x.shape[-1], name="dense", init=self.init)
        x = activate(x, self.activation)
        x = dropout(x, self.rate, deterministic=deterministic)
        return dense(x, self.num_labels, name="out_proj", init=self.init)


class LMHead(nn.Module):
    """The masked-word head; its activation is gelu whatever the blocks' is.

    Where it is not tied to the words, ``decoder`` has a bias of its own, and
    transformers keeps ``bias`` without using it.
    """

    config: RobertaConfig

    @nn.compact
    def __call__(self, x: jax.Array, backbone: Backbone) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, V]``."""
        cfg = self.config
        x = dense(x, cfg.hidden_size, name="dense", init=cfg.init)
        x = LayerNorm(cfg.layer_norm_eps, name="layer_norm")(activate(x, "gelu"))
        bias = self.param("bias", nn.initializers.zeros, (cfg.vocab_size,))
        if not cfg.tie_word_embeddings:
            return dense(x, cfg.vocab_size, name="decoder", init=cfg.init)
        logits = backbone.score_words(x)
        return logits + along_last(bias, logits)


class Roberta(TextModel):
    """RoBERTa with the head of a task; parameter paths are the checkpoint's keys."""

    config: RobertaConfig

    def num_layers(self) -> int:
        """The blocks."""
        return self.config.num_hidden_layers

    def num_read(self) -> int | None:
        """The classifier reads the first token."""
        return 1 if self.task == "sequence_classification" else None

    def make_backbone(self) -> Backbone:
        """Everything but the head, under the checkpoint's name."""
        return Backbone(self.config, self.task == "base", Embeddings, name="roberta")

    def answer(
        self, x: jax.Array, batch: Batch, backbone: Backbone, *, deterministic: bool
    ) -> Any:
        """What the head makes of ``[B, L, D]``, see `jft.models.heads`."""
        cfg, task = self.config, self.task
        if task == "base":
            return {"last_hidden_state": x, "pooler_output": backbone.pool(x)}
        if task == "masked_lm":
            return LMHead(cfg, name="lm_head")(x, backbone)
        if task == "question_answering":
            return heads.mark_span(x, init=cfg.init)
        rate, init = cfg.head_dropout, cfg.init
        if task == "sequence_classification":
            head = ClassificationHead(
                cfg.num_labels, "tanh", rate, init, name="classifier"
            )
            return head(x, deterministic=deterministic)
        return heads.classify_tokens(
            x, cfg.num_labels, rate=rate, deterministic=deterministic, init=init
        )


HEAD_RULES = {
    "base": (),
    "masked_lm": (r"lm_head/.*",),
    "sequence_classification": (r"classifier/.*",),
    "token_classification": (r"classifier/.*",),
    "question_answering": (r"qa_outputs/.*",),
}


def layer_index(config: RobertaConfig) -> LayerIndex:
    """Map each parameter path to its depth.

    >>> layer_index(RobertaConfig())("roberta/encoder/layer/3/output/dense/bias")
    4
    """
    num_layers = config.num_hidden_layers
    return make_layer_index(
        "RoBERTa",
        num_layers=num_layers,
        rules=[
            (r"roberta/embeddings/.+", 0),
            (r"roberta/encoder/layer/(\d+)/.+", 1),
            (r"(?:roberta/pooler|lm_head|classifier|qa_outputs)/.+", num_layers + 1),
        ],
    )


def _variant(cls: type[RobertaConfig], width: int, **changes: Any) -> RobertaConfig:
    return cls(
        hidden_size=width,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        **changes,
    )


FAMILY = Family(
    model_type="roberta",
    heads={
        "base": "RobertaModel",
        "masked_lm": "RobertaForMaskedLM",
        "sequence_classification": "RobertaForSequenceClassification",
        "token_classification": "RobertaForTokenClassification",
        "question_answering": "RobertaForQuestionAnswering",
    },
    base_prefix="roberta",
    config_from_dict=config_from_dict,
    make_module=Roberta,
    layer_index=layer_index,
    num_layers=lambda config: config.num_hidden_layers,
    # the norm of the last block belongs to that block; there is none behind it
    max_positions=num_positions,
    packed_heads=heads_of_encoders,
    final_norm=r"(?!)",
    head_rules=HEAD_RULES.__getitem__,
    optional_rules=lambda task: (r"roberta/pooler/.*",) if task == "base" else (),
    shared_rules=(r"roberta/embeddings/word_embeddings/.*",),
    embedding_rules=(
        r"roberta/embeddings/word_embeddings/.*",
        r"lm_head/(?:bias|decoder/.*)",
    ),
    column_parallel=r"query|key|value|intermediate/dense",
    row_parallel=r"output/dense",
    variants={
        "roberta-base": _variant(RobertaConfig, 768),
        "roberta-large": _variant(RobertaConfig, 1024, num_hidden_layers=24),
        "distilroberta-base": _variant(RobertaConfig, 768, num_hidden_layers=6),
    },
)

XLM_FAMILY = dataclasses.replace(
    FAMILY,
    model_type="xlm-roberta",
    heads={task: f"XLM{name}" for task, name in FAMILY.heads.items()},
    config_from_dict=lambda config: config_from_dict(config, XlmRobertaConfig),
    variants={
        "xlm-roberta-base": _variant(XlmRobertaConfig, 768, vocab_size=250002),
        "xlm-roberta-large": _variant(
            XlmRobertaConfig, 1024, num_hidden_layers=24, vocab_size=250002
        ),
    },
)
