# SPDX-License-Identifier: Apache-2.0
"""ELECTRA: BERT's blocks behind embeddings of a width of their own; no pooler.

Discriminators are what is fine-tuned; the task ``masked_lm`` is the generator. The head
that told replaced tokens from real ones is not here: load a discriminator with a task.

Clark et al. 2020, "ELECTRA: Pre-training Text Encoders as Discriminators Rather Than
Generators", arXiv 2003.10555.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
from flax import linen as nn

from jft.models import heads
from jft.models.attention import padding_mask
from jft.models.bert import Embeddings, Encoder
from jft.models.bert_config import ENCODER_ONLY, BertConfig
from jft.models.family import Family, make_layer_index
from jft.models.fields import check_heads, check_token_id, read_fields
from jft.models.layers import LayerNorm, activate, dense
from jft.models.model import TextModel
from jft.models.packing import first_tokens, heads_of_encoders
from jft.models.roberta import ClassificationHead
from jft.models.stages import Stages
from jft.types import Batch, LayerIndex


@dataclass(frozen=True, kw_only=True)
class ElectraConfig(BertConfig):
    """BERT's fields with ELECTRA's defaults, and the width of the embeddings."""

    embedding_size: int = 128
    hidden_size: int = 256
    num_attention_heads: int = 4
    intermediate_size: int = 1024


def config_from_dict(config: Mapping[str, Any]) -> ElectraConfig:
    """Read config.json.

    Raises:
      InputError: names the field whose value this model cannot honour.
    """
    result = read_fields(ElectraConfig, config, only=ENCODER_ONLY)
    width, num_heads = result.hidden_size, result.num_attention_heads
    check_heads("hidden_size", width, "num_attention_heads", num_heads)
    check_token_id("pad_token_id", result.pad_token_id, result.vocab_size)
    return result


class Backbone(nn.Module):
    """Everything but the head."""

    config: ElectraConfig

    def setup(self) -> None:
        """Name the parts as the checkpoint does."""
        cfg = self.config
        self.embeddings = Embeddings(replace(cfg, hidden_size=cfg.embedding_size))
        if cfg.embedding_size != cfg.hidden_size:
            self.embeddings_project = nn.Dense(cfg.hidden_size, kernel_init=cfg.init)
        self.encoder = Encoder(cfg)

    def __call__(
        self, batch: Batch, hidden: Any, stages: Stages, *, deterministic: bool
    ) -> jax.Array:
        """Run the stages below the head: ``[B, L, D]``."""
        cfg = self.config
        if stages.embed:
            hidden = self.embeddings(batch, deterministic=deterministic)
            if cfg.embedding_size != cfg.hidden_size:
                hidden = self.embeddings_project(hidden)
        mask = padding_mask(batch)
        return self.encoder(
            hidden, mask, first_tokens(batch), stages, deterministic=deterministic
        )

    def score_words(self, x: jax.Array) -> jax.Array:
        """Score ``[B, L, E]`` against every word: the tied output layer."""
        return self.embeddings.word_embeddings.attend(x)


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

    def num_layers(self) -> int:
        """The blocks."""
        return self.config.num_hidden_layers

    def num_read(self) -> int | None:
        """The classifier reads the first token."""
        return 1 if self.task == "sequence_classification" else None

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


HEAD_RULES = {
    "base": (),
    "masked_lm": (r"generator_(?:predictions|lm_head)/.*",),
    "sequence_classification": (r"classifier/.*",),
    "token_classification": (r"classifier/.*",),
    "question_answering": (r"qa_outputs/.*",),
}


def layer_index(config: ElectraConfig) -> LayerIndex:
    """Map each parameter path to its depth.

    >>> layer_index(ElectraConfig())("electra/embeddings_project/kernel")
    0
    """
    num_layers = config.num_hidden_layers
    head = r"generator_predictions|generator_lm_head|classifier|qa_outputs"
    return make_layer_index(
        "ELECTRA",
        num_layers=num_layers,
        rules=[
            (r"electra/(?:embeddings|embeddings_project)/.+", 0),
            (r"electra/encoder/layer/(\d+)/.+", 1),
            (rf"(?:{head})/.+", num_layers + 1),
        ],
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
    config_from_dict=config_from_dict,
    make_module=Electra,
    layer_index=layer_index,
    num_layers=lambda config: config.num_hidden_layers,
    # the norm of the last block belongs to that block; there is none behind it
    final_norm=r"(?!)",
    head_rules=HEAD_RULES.__getitem__,
    shared_rules=(r"electra/embeddings/word_embeddings/.*",),
    embedding_rules=(
        r"electra/embeddings/word_embeddings/.*",
        r"generator_lm_head/.*",
    ),
    column_parallel=r"query|key|value|intermediate/dense",
    row_parallel=r"output/dense",
    max_positions=lambda config: config.max_position_embeddings,
    packed_heads=heads_of_encoders,
    variants={
        "electra-small-discriminator": _variant(128, 256),
        "electra-base-discriminator": _variant(768, 768),
        "electra-large-discriminator": _variant(1024, 1024, 24),
        "electra-base-generator": _variant(768, 256),
        "electra-large-generator": _variant(1024, 256, 24),
    },
)
