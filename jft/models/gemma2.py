# SPDX-License-Identifier: Apache-2.0
"""Gemma 2: norms on both sides, soft caps, every other block slides.

Gemma Team 2024, arXiv 2408.00118.
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
    Fields,
    all_layers,
    make_config,
    make_windows,
    one_rope,
)
from jft.models.fields import read_fields


@dataclass(frozen=True, kw_only=True)
class GemmaFields(Fields):
    """The fields of config.json that change the arithmetic, with its defaults."""

    vocab_size: int = 256000
    hidden_size: int = 2304
    intermediate_size: int = 9216
    num_hidden_layers: int = 26
    num_attention_heads: int = 8
    num_key_value_heads: int | None = 4
    head_dim: int | None = 256
    max_position_embeddings: int = 8192
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True
    hidden_activation: str = "gelu_pytorch_tanh"
    attention_bias: bool = False
    query_pre_attn_scalar: int = 256
    sliding_window: int | None = 4096
    layer_types: tuple[str, ...] | None = None
    final_logit_softcapping: float | None = 30.0
    attn_logit_softcapping: float | None = 50.0

    def types_of_layers(self, every: int) -> tuple[str, ...]:
        """Return ``layer_types``; where there are none, every such block is full."""
        return self.layer_types or tuple(
            SLIDING if (i + 1) % every else FULL for i in range(self.num_hidden_layers)
        )

    def traits(self) -> dict[str, Any]:
        """Return what Gemma 2 and 3 have in common."""
        return {
            "activation": self.hidden_activation,
            "score_scale": self.query_pre_attn_scalar**-0.5,
            "qkv_bias": self.attention_bias,
            "output_bias": self.attention_bias,
            "norm_offset": 1.0,
            "norms": "both",
            "embedding_scale": self.hidden_size**0.5,
            "logit_softcap": self.final_logit_softcapping,
        }


def config_from_dict(config: Mapping[str, Any]) -> DecoderConfig:
    """Read config.json.

    Raises:
      InputError: names the field whose value this model cannot honour.
    """
    # transformers reads use_bidirectional_attention, but its mask stays causal
    only = {**CAUSAL_ONLY, "use_bidirectional_attention": (False, None)}
    fields = read_fields(GemmaFields, config, only=only)
    layer_types = fields.types_of_layers(every=2)
    return make_config(
        fields,
        windows=make_windows(fields, layer_types, fields.sliding_window),
        ropes=all_layers(fields, one_rope(config, fields)),
        score_softcap=fields.attn_logit_softcapping,
        **fields.traits(),
    )


FAMILY = make_family(
    model_type="gemma2",
    heads={
        "base": "Gemma2Model",
        "causal_lm": "Gemma2ForCausalLM",
        "sequence_classification": "Gemma2ForSequenceClassification",
        "token_classification": "Gemma2ForTokenClassification",
    },
    config_from_dict=config_from_dict,
    variants={
        "gemma-2-2b": {},
        "gemma-2-9b": {
            "hidden_size": 3584,
            "intermediate_size": 14336,
            "num_hidden_layers": 42,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
        },
    },
)
