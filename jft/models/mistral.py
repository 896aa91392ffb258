# SPDX-License-Identifier: Apache-2.0
"""Mistral: Llama whose tokens see a window. Jiang et al. 2023, arXiv 2310.06825."""

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
class MistralFields(Fields):
    """The fields of config.json that change the arithmetic, with its defaults."""

    intermediate_size: int = 14336
    num_key_value_heads: int | None = 8
    max_position_embeddings: int = 131072
    hidden_act: str = "silu"
    sliding_window: int | None = 4096


def config_from_dict(config: Mapping[str, Any]) -> DecoderConfig:
    """Read config.json.

    Raises:
      InputError: names the field whose value this model cannot honour.
    """
    # transformers ignores layer_types here; a model that has them is a Ministral
    only = {**CAUSAL_ONLY, "layer_types": (None,), "attention_bias": (False,)}
    fields = read_fields(MistralFields, config, only=only)
    return make_config(
        fields,
        activation=fields.hidden_act,
        windows=all_layers(fields, fields.sliding_window),
        ropes=all_layers(fields, one_rope(config, fields)),
    )


FAMILY = make_family(
    model_type="mistral",
    heads={
        "base": "MistralModel",
        "causal_lm": "MistralForCausalLM",
        "sequence_classification": "MistralForSequenceClassification",
        "question_answering": "MistralForQuestionAnswering",
        "token_classification": "MistralForTokenClassification",
    },
    config_from_dict=config_from_dict,
    variants={
        "Mistral-7B-v0.1": {"max_position_embeddings": 32768, "rms_norm_eps": 1e-5},
        "Mistral-7B-v0.3": {
            "vocab_size": 32768,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-5,
            "rope_theta": 1000000.0,
            "sliding_window": None,
        },
    },
)
