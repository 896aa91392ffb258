# SPDX-License-Identifier: Apache-2.0
"""Qwen 3: Qwen 2 without biases, with normed queries and keys.

Yang et al. 2025, arXiv 2505.09388.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jft.models.decoder import make_family
from jft.models.decoder_config import (
    CAUSAL_ONLY,
    DecoderConfig,
    all_layers,
    make_config,
    one_rope,
)
from jft.models.fields import read_fields
from jft.models.qwen2 import QwenFields


@dataclass(frozen=True, kw_only=True)
class Qwen3Fields(QwenFields):
    """The fields of config.json that change the arithmetic, with its defaults."""

    head_dim: int | None = 128
    attention_bias: bool = False


def config_from_dict(config: Mapping[str, Any]) -> DecoderConfig:
    """Read config.json.

    Raises:
      InputError: names the field whose value this model cannot honour.
    """
    fields = read_fields(Qwen3Fields, config, only=CAUSAL_ONLY)
    return make_config(
        fields,
        activation=fields.hidden_act,
        windows=fields.windows,
        ropes=all_layers(fields, one_rope(config, fields)),
        qkv_bias=fields.attention_bias,
        output_bias=fields.attention_bias,
        qk_norm="head",
    )


FAMILY = make_family(
    model_type="qwen3",
    heads={
        "base": "Qwen3Model",
        "causal_lm": "Qwen3ForCausalLM",
        "sequence_classification": "Qwen3ForSequenceClassification",
        "question_answering": "Qwen3ForQuestionAnswering",
        "token_classification": "Qwen3ForTokenClassification",
    },
    config_from_dict=config_from_dict,
    # older than the other heads' prefix, and kept
    prefix_exceptions={"question_answering": "transformer"},
    variants={
        "Qwen3-0.6B": {
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "max_position_embeddings": 40960,
            "tie_word_embeddings": True,
            "rope_theta": 1000000.0,
        },
        "Qwen3-8B": {
            "intermediate_size": 12288,
            "num_hidden_layers": 36,
            "num_key_value_heads": 8,
            "max_position_embeddings": 40960,
            "rope_theta": 1000000.0,
        },
    },
)
