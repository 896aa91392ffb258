# SPDX-License-Identifier: Apache-2.0
"""What decoders are configured by: fields of config.json, and traits.

Each family reads its config.json into `Fields` of its own defaults and turns them into
one `DecoderConfig`, whose traits say what the forward of `jft.models.decoder` does.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jft.models.fields import check_heads, check_token_id
from jft.models.heads import token_dropout
from jft.models.layers import Init, normal
from jft.models.rotary import Rope, read_rope
from jft.types import InputError

FULL, SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True, kw_only=True)
class Fields:
    """What every family's config.json has: transformers' names, Llama's defaults."""

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    pad_token_id: int | None = None
    tie_word_embeddings: bool = False
    attention_dropout: float = 0.0
    # before the classifier of tokens; no config class lists them, its head reads them
    classifier_dropout: float | None = None
    hidden_dropout: float | None = None
    num_labels: int = 2

    @property
    def head_width(self) -> int:
        """Dimensions of a head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def num_groups(self) -> int:
        """Heads of keys and values, each shared by equally many queries."""
        return self.num_key_value_heads or self.num_attention_heads


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(Fields):
    """The fields that families share, and the traits in which they differ."""

    activation: str
    windows: tuple[int | None, ...]  # a block: tokens that a query sees; None for all
    ropes: tuple[Rope, ...]  # a block
    score_scale: float  # factor of query times key
    bidirectional: bool = False  # tokens also see those behind them
    fused: bool = False  # one product makes queries, keys, values; one gate and up
    qkv_bias: bool = False
    output_bias: bool = False  # of attention
    mlp_bias: bool = False
    # queries and keys are normed head by head, or all heads at once
    qk_norm: Literal["head", "all"] | None = None
    norm_offset: float = 0.0  # added to every norm's scale
    norms: Literal["before", "behind", "both"] = "before"  # of attention and MLP
    embedding_scale: float = 1.0
    score_softcap: float | None = None
    logit_softcap: float | None = None
    residual_dropout: float = 0.0

    @property
    def init(self) -> Init:
        """How matrices are drawn."""
        return normal(self.initializer_range)

    @property
    def head_dropout(self) -> float:
        """The rate before the classifier of tokens."""
        return token_dropout(self.classifier_dropout, self.hidden_dropout)


# fields that would make another model of any of them -> the values that do not
CAUSAL_ONLY: Mapping[str, tuple[Any, ...]] = {
    "is_causal": (True,),
    "add_cross_attention": (False,),
    "token_classification_bias": (True,),
}


def make_config(fields: Fields, **traits: Any) -> DecoderConfig:
    """Join the fields that families share and the traits of one.

    Raises:
      InputError: if widths do not divide into heads or heads into groups, or there is
        no such token as the padding.
    """
    heads_name, num_heads = "num_attention_heads", fields.num_attention_heads
    if fields.head_dim is None:
        check_heads("hidden_size", fields.hidden_size, heads_name, num_heads)
    check_heads(heads_name, num_heads, "num_key_value_heads", fields.num_groups)
    check_token_id("pad_token_id", fields.pad_token_id, fields.vocab_size)
    shared = {f.name: getattr(fields, f.name) for f in dataclasses.fields(Fields)}
    traits.setdefault("score_scale", fields.head_width**-0.5)
    return DecoderConfig(**shared, **traits)


def all_layers(fields: Fields, trait: Any) -> tuple[Any, ...]:
    """The same window or rope for every block."""
    return (trait,) * fields.num_hidden_layers


def make_windows(
    fields: Fields, layer_types: Sequence[str], window: int | None
) -> tuple[int | None, ...]:
    """Return each block's window from ``layer_types``.

    Raises:
      InputError: if a type is not known, or there are too few, or a block slides and
        there is no window.
    """
    if len(layer_types) != fields.num_hidden_layers:
        raise InputError(
            f"config.json: layer_types names {len(layer_types)} layers, but "
            f"num_hidden_layers is {fields.num_hidden_layers}."
        )
    unknown = sorted(set(layer_types) - {FULL, SLIDING})
    if unknown:
        raise InputError(
            f"config.json: layer_types has {unknown}; known are {[FULL, SLIDING]}."
        )
    if SLIDING in layer_types and window is None:
        raise InputError(
            f"config.json: layer_types has {SLIDING!r}, but there is no "
            "sliding_window (or use_sliding_window is false)."
        )
    return tuple(window if kind == SLIDING else None for kind in layer_types)


def one_rope(config: Mapping[str, Any], fields: Fields, **options: Any) -> Rope:
    """Read the rope that all blocks share.

    Raises:
      InputError: if config.json has one for each type of layer, or it turns a part of
        each head, which only Phi-3 does.
    """
    given = config.get("rope_scaling") or config.get("rope_parameters") or {}
    nested = sorted(k for k, value in given.items() if isinstance(value, Mapping))
    if nested:
        raise InputError(
            f"config.json: rope_parameters has settings for {nested}; this model turns "
            "all its layers alike."
        )
    return check_rope(
        read_rope(
            config,
            head_width=fields.head_width,
            max_positions=fields.max_position_embeddings,
            **options,
        ),
        fields,
    )


def check_rope(rope: Rope, fields: Fields, *, partial: bool = False) -> Rope:
    """Return the rope, or say why heads of this width cannot turn so."""
    if rope.width != fields.head_width and not partial:
        raise InputError(
            f"config.json: partial_rotary_factor is {rope.width / fields.head_width}; "
            "this model turns whole heads, so it must be 1."
        )
    if rope.width % 2:
        raise InputError(
            f"config.json: rotary positions turn pairs, but {rope.width} dimensions of "
            "a head turn (head_dim, partial_rotary_factor), which is odd."
        )
    for name in ("short_factor", "long_factor"):
        factors = rope.options.get(name)
        if factors is not None and len(factors) != rope.width // 2:
            raise InputError(
                f"config.json: {name} of rope_parameters has {len(factors)} numbers; "
                f"expected one a pair, {rope.width // 2}."
            )
    return rope
