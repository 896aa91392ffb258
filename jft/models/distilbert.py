# SPDX-License-Identifier: Apache-2.0
"""DistilBERT: a smaller BERT without token types and pooler, under names of its own.

Sanh et al. 2019, "DistilBERT, a distilled version of BERT: smaller, faster, cheaper and
lighter", arXiv 1910.01108.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jft.models import heads
from jft.models.attention import padding_mask, self_attention
from jft.models.bert import Embeddings, Encoder
from jft.models.bert_config import BUFFERS, OLD_KEYS, WORDS, BertConfig
from jft.models.depth import Place
from jft.models.dropout import dropout
from jft.models.family import Family, limit_of_table
from jft.models.fields import check_heads, check_token_id, read_fields, resolve_names
from jft.models.layers import Init, LayerNorm, activate, dense, normal
from jft.models.masks import Mask
from jft.models.model import TextModel
from jft.models.packing import first_tokens, heads_of_encoders, tokens_read
from jft.models.stages import Stages
from jft.types import Batch

EPS = 1e-12  # of every norm; no field says it


@dataclass(frozen=True, kw_only=True)
class DistilBertConfig:
    """The fields of config.json that change the arithmetic, with its defaults."""

    vocab_size: int = 30522
    max_position_embeddings: int = 512
    sinusoidal_pos_embds: bool = False  # how positions start; they are trained as well
    n_layers: int = 6
    n_heads: int = 12
    dim: int = 768
    hidden_dim: int = 4 * 768
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation: str = "gelu"
    initializer_range: float = 0.02
    qa_dropout: float = 0.1
    seq_classif_dropout: float = 0.2
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True
    num_labels: int = 2

    @property
    def num_hidden_layers(self) -> int:
        """The blocks."""
        return self.n_layers

    @property
    def init(self) -> Init:
        """How matrices are drawn."""
        return normal(self.initializer_range)


# transformers' general names for fields -> DistilBERT's, which they overrule
OTHER_NAMES = {
    "hidden_size": "dim",
    "num_attention_heads": "n_heads",
    "num_hidden_layers": "n_layers",
}


def config_from_dict(config: Mapping[str, Any]) -> DistilBertConfig:
    """Read config.json; an alias wins over the name it stands for.

    Raises:
      InputError: names the field whose value this model cannot honour.
    """
    result = read_fields(DistilBertConfig, resolve_names(config, OTHER_NAMES))
    check_heads("dim", result.dim, "n_heads", result.n_heads)
    check_token_id("pad_token_id", result.pad_token_id, result.vocab_size)
    return result


def draw_sinusoids(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Fill a table ``[L, D]`` with sines at even and cosines at odd places."""
    places = np.arange(shape[1])
    angles = (
        np.arange(shape[0])[:, None] / 10000 ** (2 * (places // 2) / shape[1])[None]
    )
    table = np.where(places[None] % 2, np.cos(angles), np.sin(angles))
    return jnp.asarray(table, jnp.float32)


class SelfAttention(nn.Module):
    """Queries, keys and values of the tokens, the mix, and its output."""

    config: DistilBertConfig
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
        mixed = self_attention(
            x,
            mask,
            num_heads=cfg.n_heads,
            names=("q_lin", "k_lin", "v_lin"),
            init=cfg.init,
            dropout_rate=cfg.attention_dropout,
            deterministic=deterministic,
            num_read=self.num_read,
            first=first,
        )
        return dense(mixed, cfg.dim, name="out_lin", init=cfg.init)


class FFN(nn.Module):
    """The MLP, with dropout behind it."""

    config: DistilBertConfig

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``."""
        cfg = self.config
        x = dense(x, cfg.hidden_dim, name="lin1", init=cfg.init)
        x = activate(x, cfg.activation)
        x = dense(x, cfg.dim, name="lin2", init=cfg.init)
        return dropout(x, cfg.dropout, deterministic=deterministic)


class Block(nn.Module):
    """Attention, then the MLP, each added and normed after."""

    config: DistilBertConfig
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
        attention = SelfAttention(self.config, self.num_read, name="attention")
        mixed = attention(x, mask, first, deterministic=deterministic)
        x = LayerNorm(EPS, name="sa_layer_norm")(
            mixed + tokens_read(x, self.num_read, first)
        )
        wide = FFN(self.config, name="ffn")(x, deterministic=deterministic)
        return LayerNorm(EPS, name="output_layer_norm")(wide + x)


class Backbone(nn.Module):
    """Everything but the head."""

    config: DistilBertConfig

    def setup(self) -> None:
        """Name the parts as the checkpoint does."""
        cfg = self.config
        as_berts = BertConfig(
            vocab_size=cfg.vocab_size,
            hidden_size=cfg.dim,
            max_position_embeddings=cfg.max_position_embeddings,
            type_vocab_size=0,
            hidden_dropout_prob=cfg.dropout,
            initializer_range=cfg.initializer_range,
            layer_norm_eps=EPS,
            pad_token_id=cfg.pad_token_id,
        )
        places = draw_sinusoids if cfg.sinusoidal_pos_embds else None
        self.embeddings = Embeddings(as_berts, places)
        self.transformer = Encoder(cfg, Block)

    def __call__(
        self, batch: Batch, hidden: Any, stages: Stages, *, deterministic: bool
    ) -> jax.Array:
        """Run the stages below the head: ``[B, L, D]``."""
        if stages.embed:
            hidden = self.embeddings(batch, deterministic=deterministic)
        mask = padding_mask(batch)
        return self.transformer(
            hidden, mask, first_tokens(batch), stages, deterministic=deterministic
        )

    def score_words(self, x: jax.Array) -> jax.Array:
        """Score ``[B, L, D]`` against every word: the tied output layer."""
        return self.embeddings.word_embeddings.attend(x)


class DistilBert(TextModel):
    """DistilBERT with the head of a task; parameter paths are the checkpoint's keys."""

    config: DistilBertConfig

    heads_of_first_token = ("sequence_classification",)

    def make_backbone(self) -> Backbone:
        """Everything but the head, under the checkpoint's name."""
        return Backbone(self.config, name="distilbert")

    def answer(
        self, x: jax.Array, batch: Batch, backbone: Backbone, *, deterministic: bool
    ) -> Any:
        """What the head makes of ``[B, L, D]``, see `jft.models.heads`."""
        cfg, task = self.config, self.task
        if task == "base":
            return {"last_hidden_state": x}
        if task == "masked_lm":
            x = dense(x, cfg.dim, name="vocab_transform", init=cfg.init)
            x = LayerNorm(EPS, name="vocab_layer_norm")(activate(x, cfg.activation))
            tied = backbone.score_words if cfg.tie_word_embeddings else None
            return heads.score_words(
                x, tied, cfg.vocab_size, name="vocab_projector", init=cfg.init
            )
        if task == "question_answering":
            x = dropout(x, cfg.qa_dropout, deterministic=deterministic)
            return heads.mark_span(x, init=cfg.init)
        rate = cfg.dropout
        if task == "sequence_classification":
            x = dense(x[:, 0], cfg.dim, name="pre_classifier", init=cfg.init)
            x, rate = nn.relu(x), cfg.seq_classif_dropout
        return heads.classify_tokens(
            x, cfg.num_labels, rate=rate, deterministic=deterministic, init=cfg.init
        )


FAMILY = Family(
    model_type="distilbert",
    heads={
        "base": "DistilBertModel",
        "masked_lm": "DistilBertForMaskedLM",
        "sequence_classification": "DistilBertForSequenceClassification",
        "token_classification": "DistilBertForTokenClassification",
        "question_answering": "DistilBertForQuestionAnswering",
    },
    base_prefix="distilbert",
    config_from_dict=config_from_dict,
    make_module=DistilBert,
    depths=(
        (r"distilbert/embeddings/.+", Place.EMBEDDINGS),
        (r"distilbert/transformer/layer/(\d+)/.+", Place.BLOCK),
    ),
    head_rules={
        **heads.HEAD_RULES,
        "masked_lm": (r"vocab_(?:transform|layer_norm|projector)/.*",),
        "sequence_classification": (r"(?:pre_)?classifier/.*",),
    },
    shared_rules=(r"distilbert/embeddings/word_embeddings/.*",),
    embedding_rules=(
        r"distilbert/embeddings/word_embeddings/.*",
        r"vocab_projector/.*",
    ),
    column_parallel=r"[qkv]_lin|lin1",
    row_parallel=r"out_lin|lin2",
    max_positions=limit_of_table,
    packed_heads=heads_of_encoders,
    old_keys=OLD_KEYS,
    tied_outputs=((r"vocab_projector\.weight", WORDS),),
    buffers=BUFFERS,
    variants={
        "distilbert-base-uncased": DistilBertConfig(),
        "distilbert-base-cased": DistilBertConfig(vocab_size=28996),
        "distilbert-base-multilingual-cased": DistilBertConfig(vocab_size=119547),
    },
)
