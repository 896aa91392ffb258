# SPDX-License-Identifier: Apache-2.0
"""Gemma 3 and EmbeddingGemma, text only: two ropes, normed queries and keys.

Gemma Team 2025, arXiv 2503.19786; EmbeddingGemma, whose tokens also see those behind
them, arXiv 2509.20354.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jft.models.decoder import make_family
from jft.models.decoder_config import (
    CAUSAL_ONLY,
    FULL,
    SLIDING,
    DecoderConfig,
    check_rope,
    make_config,
    make_windows,
)
from jft.models.fields import read_fields
from jft.models.gemma2 import GemmaFields
from jft.models.rotary import Rope, read_rope
from jft.types import InputError


@dataclass(frozen=True, kw_only=True)
class Gemma3Fields(GemmaFields):
    """The fields of config.json that change the arithmetic, with its defaults."""

    vocab_size: int = 262208
    max_position_embeddings: int = 131072
    final_logit_softcapping: float | None = None
    attn_logit_softcapping: float | None = None
    sliding_window_pattern: int = 6  # older checkpoints have it for layer_types
    use_bidirectional_attention: bool | None = False


def config_from_dict(config: Mapping[str, Any]) -> DecoderConfig:
    """Read config.json.

    Raises:
      InputError: names the field whose value this model cannot honour.
    """
    # transformers reads attn_logit_softcapping, but this family's attention has none
    only = {**CAUSAL_ONLY, "attn_logit_softcapping": (None,)}
    fields = read_fields(Gemma3Fields, config, only=only)
    window, bidirectional = (
        fields.sliding_window,
        bool(fields.use_bidirectional_attention),
    )
    if bidirectional and window is not None:
        window = window // 2 + 1  # half of it to each side, and the token itself
    layer_types = fields.types_of_layers(every=fields.sliding_window_pattern)
    ropes = {kind: _rope(config, fields, kind) for kind in (FULL, SLIDING)}
    return make_config(
        fields,
        windows=make_windows(fields, layer_types, window),
        ropes=tuple(ropes[kind] for kind in layer_types),
        bidirectional=bool(bidirectional),
        qk_norm="head",
        **fields.traits(),
    )


def _rope(config: Mapping[str, Any], fields: Gemma3Fields, kind: str) -> Rope:
    """Read the rope of a type of layer; scaling outside its own is the full layers'."""
    by_type = config.get("rope_parameters") or {}
    if by_type and not by_type.keys() & {FULL, SLIDING}:
        raise InputError(
            f"config.json: rope_parameters has {sorted(by_type)}; expected one mapping "
            f"each for {FULL!r} and {SLIDING!r}."
        )
    own = dict(by_type.get(kind) or {})
    if kind == FULL:
        own |= config.get("rope_scaling") or {}
        theta = config.get("rope_theta") or 1_000_000.0
    else:
        theta = config.get("rope_local_base_freq") or 10_000.0
    rope = read_rope(
        {"rope_parameters": {"rope_theta": theta, **own}},
        head_width=fields.head_width,
        max_positions=fields.max_position_embeddings,
    )
    return check_rope(rope, fields)


FAMILY = make_family(
    model_type="gemma3_text",
    heads={
        "base": "Gemma3TextModel",
        "causal_lm": "Gemma3ForCausalLM",
        "sequence_classification": "Gemma3TextForSequenceClassification",
    },
    config_from_dict=config_from_dict,
    variants={
        "gemma-3-270m": {
            "vocab_size": 262144,
            "hidden_size": 640,
            "intermediate_size": 2048,
            "num_hidden_layers": 18,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "max_position_embeddings": 32768,
            "sliding_window": 512,
        },
        "gemma-3-1b": {
            "vocab_size": 262144,
            "hidden_size": 1152,
            "intermediate_size": 6912,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "max_position_embeddings": 32768,
            "sliding_window": 512,
        },
        "embeddinggemma-300m": {
            "vocab_size": 262144,
            "hidden_size": 768,
            "intermediate_size": 1152,
            "num_hidden_layers": 24,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "max_position_embeddings": 2048,
            "sliding_window": 512,
            "use_bidirectional_attention": True,
        },
    },
)
