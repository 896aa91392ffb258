# SPDX-License-Identifier: Apache-2.0
"""Llama 2 and 3, SmolLM, TinyLlama: the plain decoder.

Touvron et al. 2023, arXiv 2307.09288; Grattafiori et al. 2024, arXiv 2407.21783.
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
class LlamaFields(Fields):
    """The fields of config.json that change the arithmetic, with its defaults."""

    hidden_act: str = "silu"
    attention_bias: bool = False
    mlp_bias: bool = False


def config_from_dict(config: Mapping[str, Any]) -> DecoderConfig:
    """Read config.json.

    Raises:
      InputError: names the field whose value this model cannot honour.
    """
    # the matrices of tensor-parallel pretraining were multiplied in slices
    only = {**CAUSAL_ONLY, "pretraining_tp": (1, None)}
    fields = read_fields(LlamaFields, config, only=only)
    return make_config(
        fields,
        activation=fields.hidden_act,
        windows=all_layers(fields, None),
        ropes=all_layers(fields, one_rope(config, fields)),
        qkv_bias=fields.attention_bias,
        output_bias=fields.attention_bias,
        mlp_bias=fields.mlp_bias,
    )


_LLAMA_3: Mapping[str, Any] = {
    "vocab_size": 128256,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}

FAMILY = make_family(
    model_type="llama",
    heads={
        "base": "LlamaModel",
        "causal_lm": "LlamaForCausalLM",
        "sequence_classification": "LlamaForSequenceClassification",
        "question_answering": "LlamaForQuestionAnswering",
        "token_classification": "LlamaForTokenClassification",
    },
    config_from_dict=config_from_dict,
    # older than the other heads' prefix, and kept
    prefix_exceptions={"question_answering": "transformer"},
    variants={
        "TinyLlama-1.1B": {
            "hidden_size": 2048,
            "intermediate_size": 5632,
            "num_hidden_layers": 22,
            "num_key_value_heads": 4,
            "rms_norm_eps": 1e-5,
        },
        "SmolLM-135M": {
            "vocab_size": 49152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True,
        },
        "SmolLM2-360M": {
            "vocab_size": 49152,
            "hidden_size": 960,
            "intermediate_size": 2560,
            "num_attention_heads": 15,
            "num_key_value_heads": 5,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "rope_theta": 100000.0,
            "tie_word_embeddings": True,
        },
        "Llama-2-7b": {"max_position_embeddings": 4096, "rms_norm_eps": 1e-5},
        "Llama-3.1-8B": {**_LLAMA_3, "intermediate_size": 14336},
        "Llama-3.2-1B": {
            **_LLAMA_3,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "head_dim": 64,
            "tie_word_embeddings": True,
            "rope_scaling": {**_LLAMA_3["rope_scaling"], "factor": 32.0},
        },
    },
)
