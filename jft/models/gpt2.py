# SPDX-License-Identifier: Apache-2.0
"""GPT-2, and every checkpoint in its layout: DistilGPT-2, DialoGPT, Cerebras-GPT.

Stage 0 embeds words and positions; stage i + 1 is block i, the last with the final
norm; the last stage is the head.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jft.models import heads
from jft.models.arrays import at_least_float32
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
from jft.models.fields import check_heads, read_fields, resolve_names
from jft.models.layers import (
    Blocks,
    Embed,
    Init,
    LayerNorm,
    activate,
    dense,
    normal,
)
from jft.models.masks import Mask
from jft.models.packing import heads_of_tokens
from jft.models.positions import check_length
from jft.models.stages import Stages
from jft.models.virtual_tokens import num_before
from jft.types import Batch


@dataclass(frozen=True, kw_only=True)
class GPT2Config:
    """The fields of config.json that change the arithmetic, with its defaults."""

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    classifier_dropout: float | None = None
    hidden_dropout: float | None = None
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    reorder_and_upcast_attn: bool = False
    tie_word_embeddings: bool = True
    num_labels: int = 2

    @property
    def num_hidden_layers(self) -> int:
        """The blocks."""
        return self.n_layer

    @property
    def init(self) -> Init:
        """How matrices are drawn."""
        return normal(self.initializer_range)

    @property
    def residual_init(self) -> Init:
        """How matrices that write to the residual stream are drawn."""
        return normal(self.initializer_range / math.sqrt(2 * self.n_layer))

    @property
    def head_dropout(self) -> float:
        """The rate before the classifier of tokens."""
        return heads.token_dropout(self.classifier_dropout, self.hidden_dropout)

    def score_scale(self, block: int) -> float:
        """The factor of that block's attention scores."""
        width = self.n_embd // self.n_head
        scale = width**-0.5 if self.scale_attn_weights else 1.0
        return scale / (block + 1) if self.scale_attn_by_inverse_layer_idx else scale


# transformers' general names for fields -> GPT-2's, which they overrule
OTHER_NAMES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
# fields that would make another model of it -> the values that do not
DECODER_ONLY: Mapping[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "is_causal": (True,),
}


def config_from_dict(config: Mapping[str, Any]) -> GPT2Config:
    """Read config.json.

    Raises:
      InputError: names the field whose value this model cannot honour.
    """
    given = resolve_names(config, OTHER_NAMES)
    result = read_fields(GPT2Config, given, only=DECODER_ONLY)
    check_heads("n_embd", result.n_embd, "n_head", result.n_head)
    return result


class Attention(nn.Module):
    """Causal self-attention; queries, keys and values are one product."""

    config: GPT2Config
    block: int

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: Mask, batch: Batch, *, deterministic: bool
    ) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``."""
        cfg = self.config
        fused = dense(x, 3 * cfg.n_embd, name="c_attn", init=cfg.init)
        query, key, value = (
            split_heads(part, cfg.n_head) for part in jnp.split(fused, 3, axis=-1)
        )
        key, value = with_cache(self, batch, key, value)
        if cfg.reorder_and_upcast_attn:
            query, key, value = map(at_least_float32, (query, key, value))
        mixed = attend(
            query,
            key,
            value,
            mask=mask,
            scale=cfg.score_scale(self.block),
            dropout_rate=cfg.attn_pdrop,
            deterministic=deterministic,
        )
        mixed = merge_heads(mixed).astype(x.dtype)
        y = dense(mixed, cfg.n_embd, name="c_proj", init=cfg.residual_init)
        return dropout(y, cfg.resid_pdrop, deterministic=deterministic)


class MLP(nn.Module):
    """Two products around an activation."""

    config: GPT2Config

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``."""
        cfg = self.config
        inner = 4 * cfg.n_embd if cfg.n_inner is None else cfg.n_inner
        x = dense(x, inner, name="c_fc", init=cfg.init)
        x = activate(x, cfg.activation_function)
        x = dense(x, cfg.n_embd, name="c_proj", init=cfg.residual_init)
        return dropout(x, cfg.resid_pdrop, deterministic=deterministic)


class Block(nn.Module):
    """Attention, then the MLP, each normed before and added after."""

    config: GPT2Config
    block: int

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: Mask, batch: Batch, *, deterministic: bool
    ) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``."""
        cfg = self.config
        normed = LayerNorm(cfg.layer_norm_epsilon, name="ln_1")(x)
        attention = Attention(cfg, self.block, name="attn")
        x = x + attention(normed, mask, batch, deterministic=deterministic)
        normed = LayerNorm(cfg.layer_norm_epsilon, name="ln_2")(x)
        y: jax.Array = MLP(cfg, name="mlp")(normed, deterministic=deterministic)
        return x + y


class Backbone(nn.Module):
    """Everything but the head."""

    config: GPT2Config

    def setup(self) -> None:
        """Name the parts as the checkpoint does; ``wte`` is also the tied output."""
        cfg = self.config
        self.wte = Embed(cfg.vocab_size, cfg.n_embd, cfg.init)
        self.wpe = Embed(cfg.n_positions, cfg.n_embd, cfg.init)
        self.drop = Dropout(cfg.embd_pdrop)
        self.h = Blocks(lambda i: Block(cfg, i, name=str(i)))
        self.ln_f = LayerNorm(cfg.layer_norm_epsilon)

    def __call__(
        self, batch: Batch, hidden: Any, stages: Stages, *, deterministic: bool
    ) -> jax.Array:
        """Run the stages below the head: ``[B, L, D]``."""
        x = self.embed(batch, deterministic=deterministic) if stages.embed else hidden
        mask = causal_mask(batch)
        x = self.h(x, stages.blocks, mask, batch, deterministic=deterministic)
        if stages.closes(self.config.n_layer - 1):
            x = self.ln_f(x)
        return x

    def embed(self, batch: Batch, *, deterministic: bool) -> jax.Array:
        """Map ids ``[B, L]`` to ``[B, L, D]``; token types are words of their own."""
        if "cache_mask" not in batch:  # else padding has slots, but no positions
            length = batch["input_ids"].shape[1] + num_before(batch)
            check_length(length, self.config.n_positions)
        x = self.wte(jnp.asarray(batch["input_ids"]))
        x = x + self.wpe(token_positions(batch))
        if "token_type_ids" in batch:
            x = x + self.wte(jnp.asarray(batch["token_type_ids"]))
        return self.drop(x, deterministic)

    def score_words(self, x: jax.Array) -> jax.Array:
        """Score ``[B, L, D]`` against every word: the tied output layer."""
        return self.wte.attend(x)


class GPT2(CausalModel):
    """GPT-2 with the head of a task; its parameter paths are the checkpoint's keys."""

    config: GPT2Config

    def make_backbone(self) -> Backbone:
        """Everything but the head, under the checkpoint's name."""
        return Backbone(self.config, name="transformer")


FAMILY = Family(
    model_type="gpt2",
    heads={
        "base": "GPT2Model",
        "causal_lm": "GPT2LMHeadModel",
        "sequence_classification": "GPT2ForSequenceClassification",
        "token_classification": "GPT2ForTokenClassification",
        "question_answering": "GPT2ForQuestionAnswering",
    },
    base_prefix="transformer",
    config_from_dict=config_from_dict,
    make_module=GPT2,
    depths=(
        (r"transformer/w[tp]e/.+", Place.EMBEDDINGS),
        (r"transformer/h/(\d+)/.+", Place.BLOCK),
    ),
    final_norm=r"transformer/ln_f/.+",
    head_rules=GPT2.head_rules(),
    max_positions=lambda config: config.n_positions,
    packed_heads=heads_of_tokens,
    shared_rules=(r"transformer/wte/.*",),
    embedding_rules=(r"transformer/wte/.*", r"lm_head/.*"),
    column_parallel=r"c_attn|c_fc",
    row_parallel=r"c_proj",
    tied_outputs=((r"lm_head\.weight", r"wte\.weight"),),
    buffers=(r"(?:.*\.)?attn\.(?:masked_)?bias",),  # the causal mask and its filler
    conv1d=r"(?:.*/)?h/\d+/(?:attn|mlp)/(?:c_attn|c_proj|c_fc)/kernel",
    variants={
        "distilgpt2": GPT2Config(n_layer=6),
        "gpt2": GPT2Config(),
        "gpt2-medium": GPT2Config(n_embd=1024, n_layer=24, n_head=16),
        "gpt2-large": GPT2Config(n_embd=1280, n_layer=36, n_head=20),
        "gpt2-xl": GPT2Config(n_embd=1600, n_layer=48, n_head=25),
    },
)
