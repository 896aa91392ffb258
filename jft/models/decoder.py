# SPDX-License-Identifier: Apache-2.0
"""The decoder of Llama, Mistral, Qwen, Gemma, Phi-3 and OLMo; they differ in traits.

`jft.models.decoder_config` has the traits. Touvron et al. 2023, arXiv 2302.13971.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jft.models.attention import (
    attend,
    causal_mask,
    merge_heads,
    padding_mask,
    split_heads,
    token_positions,
    with_cache,
)
from jft.models.causal import CausalModel
from jft.models.decoder_config import DecoderConfig
from jft.models.depth import Place
from jft.models.dropout import dropout
from jft.models.family import Family
from jft.models.layers import Blocks, Embed, RMSNorm, activate, dense
from jft.models.masks import Mask
from jft.models.packing import heads_of_tokens
from jft.models.rotary import Rope, rotary_tables, rotate
from jft.models.stages import Stages
from jft.types import Batch, InputError


class Context(NamedTuple):
    """What the blocks share."""

    batch: Batch
    masks: Mapping[int | None, Mask | None]  # by window
    tables: Mapping[Rope, tuple[jax.Array, jax.Array]]  # cosines, sines


def make_context(config: DecoderConfig, batch: Batch) -> Context:
    """Compute each mask and each table of angles once."""
    positions = token_positions(batch)
    return Context(
        batch,
        {window: _make_mask(config, batch, window) for window in set(config.windows)},
        {rope: rotary_tables(rope, positions) for rope in set(config.ropes)},
    )


def _make_mask(config: DecoderConfig, batch: Batch, window: int | None) -> Mask | None:
    if not config.bidirectional:
        return causal_mask(batch, window=window)
    if "cache_mask" in batch:
        raise InputError(
            "this model's tokens see those behind them (use_bidirectional_attention), "
            "so it cannot decode one by one."
        )
    mask = padding_mask(batch)
    if window is None:
        return mask
    slots = jnp.arange(batch["input_ids"].shape[1])
    near = (jnp.abs(slots[:, None] - slots[None]) < window)[None, None]
    allowed = near if mask is None else jnp.logical_and(near, mask.allowed)
    return Mask(allowed=allowed)


class Attention(nn.Module):
    """Grouped queries that turn with their position."""

    config: DecoderConfig
    layer: int

    @nn.compact
    def __call__(
        self, x: jax.Array, context: Context, *, deterministic: bool
    ) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``."""
        cfg = self.config
        query, key, value = self._project(x)
        tables = context.tables[cfg.ropes[self.layer]]
        key, value = with_cache(self, context.batch, rotate(key, tables), value)
        mixed = attend(
            rotate(query, tables),
            key,
            value,
            mask=context.masks[cfg.windows[self.layer]],
            scale=cfg.score_scale,
            softcap=cfg.score_softcap,
            dropout_rate=cfg.attention_dropout,
            deterministic=deterministic,
        )
        width, bias = cfg.hidden_size, cfg.output_bias
        return dense(merge_heads(mixed), width, name="o_proj", init=cfg.init, bias=bias)

    def _project(self, x: jax.Array) -> list[jax.Array]:
        """Make queries ``[B, L, H, K]``, keys and values ``[B, L, G, K]``."""
        cfg, bias = self.config, self.config.qkv_bias
        counts = (cfg.num_attention_heads, cfg.num_groups, cfg.num_groups)
        widths = [count * cfg.head_width for count in counts]
        if cfg.fused:
            qkv = dense(x, sum(widths), name="qkv_proj", init=cfg.init, bias=bias)
            ends = [widths[0], widths[0] + widths[1]]
            parts = jnp.split(qkv, ends, axis=-1)
        else:
            parts = [
                dense(x, width, name=name, init=cfg.init, bias=bias)
                for name, width in zip(
                    ("q_proj", "k_proj", "v_proj"), widths, strict=True
                )
            ]
        if cfg.qk_norm == "all":
            parts[:2] = self._norm(*parts[:2])
        parts = [split_heads(p, count) for p, count in zip(parts, counts, strict=True)]
        if cfg.qk_norm == "head":
            parts[:2] = self._norm(*parts[:2])
        return parts

    def _norm(self, query: jax.Array, key: jax.Array) -> list[jax.Array]:
        """Norm queries and keys over their last axis."""
        eps, offset = self.config.rms_norm_eps, self.config.norm_offset
        return [
            RMSNorm(eps, offset, name=name)(x)
            for name, x in (("q_norm", query), ("k_norm", key))
        ]


class Mlp(nn.Module):
    """A gate times a map, mapped back. Shazeer 2020, arXiv 2002.05202."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``."""
        cfg, width = self.config, self.config.intermediate_size

        def linear(x: jax.Array, features: int, name: str) -> jax.Array:
            return dense(x, features, name=name, init=cfg.init, bias=cfg.mlp_bias)

        if cfg.fused:
            gate, up = jnp.split(linear(x, 2 * width, "gate_up_proj"), 2, axis=-1)
        else:
            gate, up = linear(x, width, "gate_proj"), linear(x, width, "up_proj")
        wide = activate(gate, cfg.activation) * up
        return linear(wide, cfg.hidden_size, "down_proj")


class Block(nn.Module):
    """Attention, then the MLP, each normed before, behind or both, and added.

    ``post_attention_layernorm`` stands before the MLP, unless attention is normed
    behind: the checkpoints call both so.
    """

    config: DecoderConfig
    layer: int

    @nn.compact
    def __call__(
        self, x: jax.Array, context: Context, *, deterministic: bool
    ) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``."""
        cfg = self.config

        def norm(name: str, x: jax.Array) -> jax.Array:
            return RMSNorm(cfg.rms_norm_eps, cfg.norm_offset, name=name)(x)

        def add(x: jax.Array, y: jax.Array) -> jax.Array:
            return x + dropout(y, cfg.residual_dropout, deterministic=deterministic)

        attention = Attention(cfg, self.layer, name="self_attn")
        mlp = Mlp(cfg, name="mlp")
        read = x if cfg.norms == "behind" else norm("input_layernorm", x)
        mixed = attention(read, context, deterministic=deterministic)
        if cfg.norms == "before":
            x = add(x, mixed)
            return add(x, mlp(norm("post_attention_layernorm", x)))
        x = add(x, norm("post_attention_layernorm", mixed))
        read = x if cfg.norms == "behind" else norm("pre_feedforward_layernorm", x)
        return add(x, norm("post_feedforward_layernorm", mlp(read)))


class Backbone(nn.Module):
    """Everything but the head."""

    config: DecoderConfig

    def setup(self) -> None:
        """Name the parts as the checkpoint does."""
        cfg = self.config
        self.embed_tokens = Embed(
            cfg.vocab_size, cfg.hidden_size, cfg.init, cfg.pad_token_id
        )
        self.layers = Blocks(lambda i: Block(cfg, i, name=str(i)))
        self.norm = RMSNorm(cfg.rms_norm_eps, cfg.norm_offset)

    def __call__(
        self, batch: Batch, hidden: Any, stages: Stages, *, deterministic: bool
    ) -> jax.Array:
        """Run the stages below the head: ``[B, L, D]``."""
        cfg = self.config
        if stages.embed:
            hidden = self.embed_tokens(jnp.asarray(batch["input_ids"]))
            hidden = hidden * jnp.asarray(cfg.embedding_scale, hidden.dtype)
        context = make_context(cfg, batch)
        x: jax.Array = self.layers(
            hidden, stages.blocks, context, deterministic=deterministic
        )
        return self.norm(x) if stages.closes(cfg.num_hidden_layers - 1) else x

    def score_words(self, x: jax.Array) -> jax.Array:
        """Score ``[B, L, D]`` against every word: the tied output layer."""
        return self.embed_tokens.attend(x)


class Decoder(CausalModel):
    """The decoder with a task's head; its parameter paths are the checkpoint's keys."""

    config: DecoderConfig

    token_classifier = "score"

    def make_backbone(self) -> Backbone:
        """Everything but the head, under the checkpoint's name."""
        return Backbone(self.config, name="model")

    def score_words(self, x: jax.Array, backbone: Backbone) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, V]``."""
        logits, cap = super().score_words(x, backbone), self.config.logit_softcap
        return logits if cap is None else jnp.tanh(logits / cap) * cap


def make_family(
    *,
    config_from_dict: Callable[[Mapping[str, Any]], DecoderConfig],
    variants: Mapping[str, Mapping[str, Any]],
    **options: Any,
) -> Family:
    """Make the record of a family that this decoder computes.

    Args:
      config_from_dict: config.json -> fields and traits.
      variants: published name -> config.json, as far as it differs from the defaults.
      options: the family's ``model_type`` and ``heads``, and what else of `Family` is
        other than here.
    """
    defaults = {
        "base_prefix": "model",
        "make_module": Decoder,
        "depths": (
            (r"model/embed_tokens/.+", Place.EMBEDDINGS),
            (r"model/layers/(\d+)/.+", Place.BLOCK),
        ),
        "final_norm": r"model/norm/.+",
        "head_rules": Decoder.head_rules(),
        "packed_heads": heads_of_tokens,
        "shared_rules": (r"model/embed_tokens/.*",),
        "embedding_rules": (r"model/embed_tokens/.*", r"lm_head/.*"),
        "column_parallel": r"(?:[qkv]|qkv|gate|up|gate_up)_proj",
        "row_parallel": r"(?:o|down)_proj",
        "tied_outputs": ((r"lm_head\.weight", r"embed_tokens\.weight"),),
        # Llama 2 and kin, once a layer
        "buffers": (r"(?:.*\.)?self_attn\.rotary_emb\.inv_freq",),
    }
    return Family(
        config_from_dict=config_from_dict,
        variants={name: config_from_dict(config) for name, config in variants.items()},
        **{**defaults, **options},
    )
