# SPDX-License-Identifier: Apache-2.0
"""GPT-NeoX, and every checkpoint in its layout: Pythia, Dolly, RedPajama-INCITE.

Stage 0 embeds words; stage i + 1 is block i, the last with the final norm; the last
stage is the head.

Black et al. 2022, "GPT-NeoX-20B", arXiv 2204.06745; Biderman et al. 2023, "Pythia",
arXiv 2304.01373.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jft.models.attention import (
    attend,
    causal_mask,
    merge_heads,
    split_heads,
    token_positions,
    with_cache,
)
from jft.models.causal import CausalModel
from jft.models.depth import Place
from jft.models.dropout import Dropout, dropout
from jft.models.family import Family
from jft.models.fields import check_heads, read_fields
from jft.models.layers import Blocks, Embed, Init, LayerNorm, activate, dense, normal
from jft.models.packing import heads_of_tokens
from jft.models.rotary import Rope, read_rope, rotary_tables, rotate
from jft.models.stages import Stages
from jft.types import Batch


@dataclass(frozen=True, kw_only=True)
class GPTNeoXConfig:
    """The fields of config.json that change the arithmetic, with its defaults."""

    vocab_size: int = 50432
    hidden_size: int = 6144
    num_hidden_layers: int = 44
    num_attention_heads: int = 64
    intermediate_size: int = 24576
    hidden_act: str = "gelu"
    attention_dropout: float = 0.0
    hidden_dropout: float = 0.0
    classifier_dropout: float = 0.1
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-5
    tie_word_embeddings: bool = False
    use_parallel_residual: bool = True
    attention_bias: bool = True
    num_labels: int = 2
    rope: Rope = field(default=Rope(width=24, theta=10_000.0, max_positions=2048))

    @property
    def init(self) -> Init:
        """How matrices are drawn."""
        return normal(self.initializer_range)

    @property
    def head_dropout(self) -> float:
        """The rate before the classifier of tokens."""
        return self.classifier_dropout


# fields that would make another model of it -> the values that do not
DECODER_ONLY: Mapping[str, tuple[Any, ...]] = {"is_causal": (True,)}


def config_from_dict(config: Mapping[str, Any]) -> GPTNeoXConfig:
    """Read config.json; ``rotary_pct`` and ``rotary_emb_base`` are of transformers 4.

    Raises:
      InputError: names the field whose value this model cannot honour.
    """
    result = read_fields(
        GPTNeoXConfig,
        {name: value for name, value in config.items() if name != "rope"},
        only=DECODER_ONLY,
    )
    width, num_heads = result.hidden_size, result.num_attention_heads
    check_heads("hidden_size", width, "num_attention_heads", num_heads)
    rope = read_rope(
        # transformers does not read these two for this family
        {k: v for k, v in config.items() if k not in ROPE_IGNORED},
        head_width=width // num_heads,
        max_positions=result.max_position_embeddings,
        theta=float(config.get("rotary_emb_base", 10_000.0)),
        partial=float(config.get("rotary_pct", 0.25)),
    )
    return replace(result, rope=rope)


ROPE_IGNORED = ("rope_theta", "partial_rotary_factor")


class Attention(nn.Module):
    """Causal self-attention; each head's query, key and value follow each other."""

    config: GPTNeoXConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, angles: Any, mask: Any, batch: Batch, *, deterministic: bool
    ) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``."""
        cfg = self.config
        width, num_heads = cfg.hidden_size, cfg.num_attention_heads
        bias = cfg.attention_bias
        fused = dense(x, 3 * width, name="query_key_value", init=cfg.init, bias=bias)
        query, key, value = jnp.split(split_heads(fused, num_heads), 3, axis=-1)
        query, key = rotate(query, angles), rotate(key, angles)
        key, value = with_cache(self, batch, key, value)
        mixed = attend(
            query,
            key,
            value,
            mask=mask,
            scale=(width // num_heads) ** -0.5,
            dropout_rate=cfg.attention_dropout,
            deterministic=deterministic,
        )
        return dense(merge_heads(mixed), width, name="dense", init=cfg.init, bias=bias)


class MLP(nn.Module):
    """Two products around an activation."""

    config: GPTNeoXConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``."""
        cfg = self.config
        x = dense(x, cfg.intermediate_size, name="dense_h_to_4h", init=cfg.init)
        x = activate(x, cfg.hidden_act)
        return dense(x, cfg.hidden_size, name="dense_4h_to_h", init=cfg.init)


class Block(nn.Module):
    """Attention and the MLP: beside each other, or one after the other."""

    config: GPTNeoXConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, angles: Any, mask: Any, batch: Batch, *, deterministic: bool
    ) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``."""
        cfg = self.config
        normed = LayerNorm(cfg.layer_norm_eps, name="input_layernorm")(x)
        attention = Attention(cfg, name="attention")
        mixed = attention(normed, angles, mask, batch, deterministic=deterministic)
        after = x + dropout(mixed, cfg.hidden_dropout, deterministic=deterministic)
        norm = LayerNorm(cfg.layer_norm_eps, name="post_attention_layernorm")
        y = MLP(cfg, name="mlp")(norm(x if cfg.use_parallel_residual else after))
        return after + dropout(y, cfg.hidden_dropout, deterministic=deterministic)


class Backbone(nn.Module):
    """Everything but the head."""

    config: GPTNeoXConfig

    def setup(self) -> None:
        """Name the parts as the checkpoint does."""
        cfg = self.config
        self.embed_in = Embed(cfg.vocab_size, cfg.hidden_size, cfg.init)
        self.emb_dropout = Dropout(cfg.hidden_dropout)
        self.layers = Blocks(lambda i: Block(cfg, name=str(i)))
        self.final_layer_norm = LayerNorm(cfg.layer_norm_eps)

    def __call__(
        self, batch: Batch, hidden: Any, stages: Stages, *, deterministic: bool
    ) -> jax.Array:
        """Run the stages below the head: ``[B, L, D]``."""
        x = hidden
        if stages.embed:
            x = self.embed_in(jnp.asarray(batch["input_ids"]))
            x = self.emb_dropout(x, deterministic)
        angles = rotary_tables(self.config.rope, token_positions(batch))
        mask = causal_mask(batch)
        options = {"deterministic": deterministic}
        x = self.layers(x, stages.blocks, angles, mask, batch, **options)
        if stages.closes(self.config.num_hidden_layers - 1):
            x = self.final_layer_norm(x)
        return x

    def score_words(self, x: jax.Array) -> jax.Array:
        """Score ``[B, L, D]`` against every word: the tied output layer."""
        return self.embed_in.attend(x)


class GPTNeoX(CausalModel):
    """GPT-NeoX with the head of a task; its paths are the checkpoint's keys."""

    config: GPTNeoXConfig

    output_layer = "embed_out"

    def make_backbone(self) -> Backbone:
        """Everything but the head, under the checkpoint's name."""
        return Backbone(self.config, name="gpt_neox")


def _pythia(width: int, layers: int, num_heads: int, words: int) -> GPTNeoXConfig:
    head_width = width // num_heads
    return GPTNeoXConfig(
        vocab_size=words,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=num_heads,
        intermediate_size=4 * width,
        rope=Rope(width=head_width // 4, theta=10_000.0, max_positions=2048),
    )


FAMILY = Family(
    model_type="gpt_neox",
    heads={
        "base": "GPTNeoXModel",
        "causal_lm": "GPTNeoXForCausalLM",
        "sequence_classification": "GPTNeoXForSequenceClassification",
        "token_classification": "GPTNeoXForTokenClassification",
        "question_answering": "GPTNeoXForQuestionAnswering",
    },
    base_prefix="gpt_neox",
    config_from_dict=config_from_dict,
    make_module=GPTNeoX,
    depths=(
        (r"gpt_neox/embed_in/.+", Place.EMBEDDINGS),
        (r"gpt_neox/layers/(\d+)/.+", Place.BLOCK),
    ),
    final_norm=r"gpt_neox/final_layer_norm/.+",
    head_rules=GPTNeoX.head_rules(),
    packed_heads=heads_of_tokens,
    shared_rules=(r"gpt_neox/embed_in/.*",),  # where they are tied
    embedding_rules=(r"gpt_neox/embed_in/.*", r"embed_out/.*"),
    column_parallel=r"query_key_value|dense_h_to_4h",
    row_parallel=r"attention/dense|dense_4h_to_h",
    tied_outputs=((r"(?:embed_out|lm_head)\.weight", r"embed_in\.weight"),),
    # the causal mask, its filler and the frequencies, such as Pythia's
    buffers=(r"(?:.*\.)?attention\.(?:(?:masked_)?bias|rotary_emb\.inv_freq)",),
    variants={
        "pythia-70m": _pythia(512, 6, 8, 50304),
        "pythia-160m": _pythia(768, 12, 12, 50304),
        "pythia-1.4b": _pythia(2048, 24, 16, 50304),
        "pythia-6.9b": _pythia(4096, 32, 32, 50432),
        "gpt-neox-20b": GPTNeoXConfig(hidden_act="gelu_fast"),
    },
)
