# SPDX-License-Identifier: Apache-2.0
"""ELECTRA: BERT's blocks behind embeddings of a width of their own; no pooler.

Discriminators are what is fine-tuned; the task ``masked_lm`` is the generator. The head
that told replaced tokens from real ones is not here: load a discriminator with a task.

Clark et al. 2020, "ELECTRA: Pre-training Text Encoders as Discriminators Rather Than
Generators", arXiv 2003.10555.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
from flax import linen as nn

from jft.models import bert, heads
from jft.models.bert import Embeddings, Encoder
from jft.models.bert_config import BUFFERS, OLD_KEYS, WORDS, BertConfig, read_config
from jft.models.depth import Place
from jft.models.family import Family, limit_of_table
from jft.models.layers import LayerNorm, activate, dense
from jft.models.model import TextModel
from jft.models.packing import heads_of_encoders
from jft.models.roberta import ClassificationHead
from jft.types import Batch


@dataclass(frozen=True, kw_only=True)
class ElectraConfig(BertConfig):
    """BERT's fields with ELECTRA's defaults, and the width of the embeddings."""

    embedding_size: int = 128
    hidden_size: int = 256
    num_attention_heads: int = 4
    intermediate_size: int = 1024


class Backbone(bert.Backbone):
    """BERT's, whose embeddings have a width of their own."""

    config: ElectraConfig
    pooled: bool = False

    def setup(self) -> None:
        """Name the parts as the checkpoint does."""
        cfg = self.config
        self.embeddings = Embeddings(replace(cfg, hidden_size=cfg.embedding_size))
        if cfg.embedding_size != cfg.hidden_size:
            self.embeddings_project = nn.Dense(cfg.hidden_size, kernel_init=cfg.init)
        self.encoder = Encoder(cfg)

    def embed(self, batch: Batch, *, deterministic: bool) -> jax.Array:
        """Map ids ``[B, L]`` to ``[B, L, D]``."""
        cfg = self.config
        x: jax.Array = self.embeddings(batch, deterministic=deterministic)
        wide = cfg.embedding_size == cfg.hidden_size
        return x if wide else self.embeddings_project(x)


class GeneratorPredictions(nn.Module):
    """Back to the width of the embeddings; gelu whatever the blocks' activation is."""

    config: ElectraConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, E]``."""
        cfg = self.config
        x = dense(x, cfg.embedding_size, name="dense", init=cfg.init)
        norm = LayerNorm(cfg.layer_norm_eps, name="LayerNorm")
        return norm(activate(x, "gelu"))


class Electra(TextModel):
    """ELECTRA with the head of a task; parameter paths are the checkpoint's keys."""

    config: ElectraConfig

    heads_of_first_token = ("sequence_classification",)

    def make_backbone(self) -> Backbone:
        """Everything but the head, under the checkpoint's name."""
        return Backbone(self.config, name="electra")

    def answer(
        self, x: jax.Array, batch: Batch, backbone: Backbone, *, deterministic: bool
    ) -> Any:
        """What the head makes of ``[B, L, D]``, see `jft.models.heads`."""
        cfg, task = self.config, self.task
        if task == "base":
            return {"last_hidden_state": x}
        if task == "masked_lm":
            x = GeneratorPredictions(cfg, name="generator_predictions")(x)
            tied = backbone.score_words if cfg.tie_word_embeddings else None
            return heads.score_words(
                x, tied, cfg.vocab_size, name="generator_lm_head", init=cfg.init
            )
        if task == "question_answering":
            return heads.mark_span(x, init=cfg.init)
        rate, init = cfg.head_dropout, cfg.init
        if task == "sequence_classification":
            head = ClassificationHead(
                cfg.num_labels, "gelu", rate, init, name="classifier"
            )
            return head(x, deterministic=deterministic)
        return heads.classify_tokens(
            x, cfg.num_labels, rate=rate, deterministic=deterministic, init=init
        )


def _variant(embedding_size: int, width: int, layers: int = 12) -> ElectraConfig:
    return ElectraConfig(
        embedding_size=embedding_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
    )


FAMILY = Family(
    model_type="electra",
    heads={
        "base": "ElectraModel",
        "masked_lm": "ElectraForMaskedLM",
        "sequence_classification": "ElectraForSequenceClassification",
        "token_classification": "ElectraForTokenClassification",
        "question_answering": "ElectraForQuestionAnswering",
    },
    base_prefix="electra",
    config_from_dict=lambda config: read_config(ElectraConfig, config),
    make_module=Electra,
    depths=(
        (r"electra/(?:embeddings|embeddings_project)/.+", Place.EMBEDDINGS),
        (r"electra/encoder/layer/(\d+)/.+", Place.BLOCK),
    ),
    head_rules={
        **heads.HEAD_RULES,
        "masked_lm": (r"generator_(?:predictions|lm_head)/.*",),
    },
    shared_rules=(r"electra/embeddings/word_embeddings/.*",),
    embedding_rules=(
        r"electra/embeddings/word_embeddings/.*",
        r"generator_lm_head/.*",
    ),
    column_parallel=r"query|key|value|intermediate/dense",
    row_parallel=r"output/dense",
    max_positions=limit_of_table,
    packed_heads=heads_of_encoders,
    old_keys=OLD_KEYS,
    tied_outputs=((r"generator_lm_head\.weight", WORDS),),
    buffers=BUFFERS,
    variants={
        "electra-small-discriminator": _variant(128, 256),
        "electra-base-discriminator": _variant(768, 768),
        "electra-large-discriminator": _variant(1024, 1024, 24),
        "electra-base-generator": _variant(768, 256),
        "electra-large-generator": _variant(1024, 256, 24),
    },
)
