# SPDX-License-Identifier: Apache-2.0
"""OLMo 2: Llama with norms behind attention and MLP, and of queries and keys.

Team OLMo 2024, arXiv 2501.00656.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jft.models.decoder import make_family
from jft.models.decoder_config import (
    CAUSAL_ONLY,
    DecoderConfig,
    Fields,
    all_layers,
    make_config,
    one_rope,
)
from jft.models.fields import read_fields


@dataclass(frozen=True, kw_only=True)
class Olmo2Fields(Fields):
    """The fields of config.json that change the arithmetic, with its defaults."""

    vocab_size: int = 50304
    rms_norm_eps: float = 1e-5
    pad_token_id: int | None = 1
    hidden_act: str = "silu"
    attention_bias: bool = False


def config_from_dict(config: Mapping[str, Any]) -> DecoderConfig:
    """Read config.json.

    Raises:
      InputError: names the field whose value this model cannot honour.
    """
    fields = read_fields(Olmo2Fields, config, only=CAUSAL_ONLY)
    return make_config(
        fields,
        activation=fields.hidden_act,
        windows=all_layers(fields, None),
        ropes=all_layers(fields, one_rope(config, fields)),
        qkv_bias=fields.attention_bias,
        output_bias=fields.attention_bias,
        qk_norm="all",
        norms="behind",
    )


_PUBLISHED: Mapping[str, Any] = {
    "vocab_size": 100352,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "pad_token_id": 100277,
    "rope_theta": 500000.0,
}

FAMILY = make_family(
    model_type="olmo2",
    heads={
        "base": "Olmo2Model",
        "causal_lm": "Olmo2ForCausalLM",
        "sequence_classification": "Olmo2ForSequenceClassification",
    },
    config_from_dict=config_from_dict,
    variants={
        "OLMo-2-0425-1B": {
            **_PUBLISHED,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 16,
        },
        "OLMo-2-1124-7B": _PUBLISHED,
        "OLMo-2-0325-32B": {
            **_PUBLISHED,
            "hidden_size": 5120,
            "intermediate_size": 27648,
            "num_hidden_layers": 64,
            "num_attention_heads": 40,
            "num_key_value_heads": 8,
        },
    },
)
