# SPDX-License-Identifier: Apache-2.0
"""Phi-3, Phi-3.5 and Phi-4 mini: Llama with fused products and LongRoPE.

Abdin et al. 2024, arXiv 2404.14219.
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
    check_rope,
    make_config,
)
from jft.models.fields import read_fields
from jft.models.rotary import Rope, read_rope
from jft.types import InputError


@dataclass(frozen=True, kw_only=True)
class Phi3Fields(Fields):
    """The fields of config.json that change the arithmetic, with its defaults.

    ``embd_pdrop`` is none of them: no forward of Phi-3 drops out its embeddings.
    """

    vocab_size: int = 32064
    hidden_size: int = 3072
    intermediate_size: int = 8192
    max_position_embeddings: int = 4096
    original_max_position_embeddings: int = 4096
    rms_norm_eps: float = 1e-5
    pad_token_id: int | None = 32000
    hidden_act: str = "silu"
    resid_pdrop: float = 0.0
    sliding_window: int | None = None


def config_from_dict(config: Mapping[str, Any]) -> DecoderConfig:
    """Read config.json.

    Raises:
      InputError: names the field whose value this model cannot honour.
    """
    # the first checkpoints list these; no forward of theirs has them
    only = {**CAUSAL_ONLY, "attention_bias": (False,), "lm_head_bias": (False,)}
    fields = read_fields(Phi3Fields, config, only=only)
    return make_config(
        fields,
        activation=fields.hidden_act,
        windows=all_layers(fields, fields.sliding_window),
        ropes=all_layers(fields, _rope(config, fields)),
        fused=True,
        residual_dropout=fields.resid_pdrop,
    )


def _rope(config: Mapping[str, Any], fields: Phi3Fields) -> Rope:
    """Read the rope; ``yarn`` is what the first checkpoints called LongRoPE."""
    given = dict(config.get("rope_scaling") or config.get("rope_parameters") or {})
    kind = given.pop("type", None)
    kind = given.get("rope_type") or kind or "default"
    given["rope_type"] = "longrope" if kind in ("su", "yarn") else kind
    if given["rope_type"] not in ("default", "longrope"):
        raise InputError(
            f"config.json: rope_type is {kind!r}; a phi3 has 'default' or 'longrope'."
        )
    outside = {
        "rope_scaling": given,
        "original_max_position_embeddings": fields.original_max_position_embeddings,
    }
    rope = read_rope(
        {**config, **outside},
        head_width=fields.head_width,
        max_positions=fields.max_position_embeddings,
    )
    return check_rope(rope, fields, partial=True)


FAMILY = make_family(
    model_type="phi3",
    heads={
        "base": "Phi3Model",
        "causal_lm": "Phi3ForCausalLM",
        "sequence_classification": "Phi3ForSequenceClassification",
        "token_classification": "Phi3ForTokenClassification",
    },
    config_from_dict=config_from_dict,
    variants={
        "Phi-3-mini-4k": {"sliding_window": 2047},
        "Phi-3-medium-4k": {
            "hidden_size": 5120,
            "intermediate_size": 17920,
            "num_hidden_layers": 40,
            "num_attention_heads": 40,
            "num_key_value_heads": 10,
            "sliding_window": 2047,
        },
    },
)
