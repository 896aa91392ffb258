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

from jft.models import bert, heads
from jft.models.attention import token_positions
from jft.models.bert import Backbone
from jft.models.bert_config import BUFFERS, OLD_KEYS, WORDS, BertConfig, read_config
from jft.models.depth import Place
from jft.models.dropout import dropout
from jft.models.family import Family
from jft.models.fields import check_token_id
from jft.models.layers import Init, LayerNorm, activate, dense
from jft.models.model import TextModel
from jft.models.packing import heads_of_encoders, is_packed
from jft.models.positions import check_length
from jft.models.virtual_tokens import num_before
from jft.types import Batch


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
    result = read_config(cls, config)
    num_rows = result.max_position_embeddings
    check_token_id("pad_token_id", result.pad_token_id, num_rows)
    return result


class Embeddings(bert.Embeddings):
    """BERT's, but for the rows of the positions."""

    config: RobertaConfig

    def row_of_padding(self) -> int:
        """The row of the padding id."""
        return self.config.pad_token_id

    def rows_of_positions(self, batch: Batch) -> jax.Array:
        """Count the tokens that are no padding: ``[B, L]``.

        ``position_ids`` are rows already, as in transformers; those of packed rows
        count from 0.

        Raises:
          InputError: for a text of more tokens than there are.
        """
        cfg, before = self.config, num_before(batch)
        ids = jnp.asarray(batch["input_ids"], jnp.int32)
        check_length(ids.shape[1] + before, num_positions(cfg))
        if "position_ids" in batch:
            first = cfg.pad_token_id + 1 if is_packed(batch) else 0
            return token_positions(batch) + first
        return count_tokens(ids, cfg.pad_token_id, before=before)


def num_positions(config: RobertaConfig) -> int:
    """Tokens that have a position: those up to the padding id's have none."""
    return config.max_position_embeddings - config.pad_token_id - 1


def count_tokens(ids: jax.Array, padding_id: int, *, before: int = 0) -> jax.Array:
    """Number the tokens from ``padding_id + 1`` on; padding is at ``padding_id``.

    ``before`` numbers are left out, see `jft.models.virtual_tokens`.

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
    """The masked-word head; its activation is gelu whatever the blocks' is."""

    config: RobertaConfig

    @nn.compact
    def __call__(self, x: jax.Array, backbone: Backbone) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, V]``."""
        cfg = self.config
        x = dense(x, cfg.hidden_size, name="dense", init=cfg.init)
        x = LayerNorm(cfg.layer_norm_eps, name="layer_norm")(activate(x, "gelu"))
        tied = backbone.score_words if cfg.tie_word_embeddings else None
        return heads.score_masked_words(self, x, tied, cfg.vocab_size, init=cfg.init)


class Roberta(TextModel):
    """RoBERTa with the head of a task; parameter paths are the checkpoint's keys."""

    config: RobertaConfig

    heads_of_first_token = ("sequence_classification",)

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
    depths=(
        (r"roberta/embeddings/.+", Place.EMBEDDINGS),
        (r"roberta/encoder/layer/(\d+)/.+", Place.BLOCK),
        (r"roberta/pooler/.+", Place.HEAD),
    ),
    head_rules={**heads.HEAD_RULES, "masked_lm": (r"lm_head/.*",)},
    optional_rules={"base": (r"roberta/pooler/.*",)},
    shared_rules=(r"roberta/embeddings/word_embeddings/.*",),
    embedding_rules=(
        r"roberta/embeddings/word_embeddings/.*",
        r"lm_head/(?:bias|decoder/.*)",
    ),
    column_parallel=r"query|key|value|intermediate/dense",
    row_parallel=r"output/dense",
    max_positions=num_positions,
    packed_heads=heads_of_encoders,
    old_keys=OLD_KEYS,
    tied_outputs=(
        (r"lm_head\.decoder\.weight", WORDS),
        (r"lm_head\.decoder\.bias", r"lm_head\.bias"),
    ),
    buffers=BUFFERS,
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
