# SPDX-License-Identifier: Apache-2.0
"""Qwen 2 and 2.5: Llama whose queries, keys and values have biases.

Yang et al. 2024, arXiv 2407.10671.
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
class QwenFields(Fields):
    """The fields of config.json that change the arithmetic, with its defaults."""

    vocab_size: int = 151936
    intermediate_size: int = 22016
    num_key_value_heads: int | None = 32
    max_position_embeddings: int = 32768
    hidden_act: str = "silu"
    use_sliding_window: bool = False
    sliding_window: int | None = 4096
    max_window_layers: int | None = None  # stands for 28, so that 0 is a value
    layer_types: tuple[str, ...] | None = None

    @property
    def windows(self) -> tuple[int | None, ...]:
        """Each block's window: the first ``max_window_layers`` blocks have none."""
        window = self.sliding_window if self.use_sliding_window else None
        num_full = 28 if self.max_window_layers is None else self.max_window_layers
        default = [
            FULL if window is None or i < num_full else SLIDING
            for i in range(self.num_hidden_layers)
        ]
        return make_windows(self, self.layer_types or default, window)


def config_from_dict(config: Mapping[str, Any]) -> DecoderConfig:
    """Read config.json.

    Raises:
      InputError: names the field whose value this model cannot honour.
    """
    only = {**CAUSAL_ONLY, "use_mrope": (False, None)}
    fields = read_fields(QwenFields, config, only=only)
    return make_config(
        fields,
        activation=fields.hidden_act,
        windows=fields.windows,
        ropes=all_layers(fields, one_rope(config, fields)),
        qkv_bias=True,
    )


FAMILY = make_family(
    model_type="qwen2",
    heads={
        "base": "Qwen2Model",
        "causal_lm": "Qwen2ForCausalLM",
        "sequence_classification": "Qwen2ForSequenceClassification",
        "question_answering": "Qwen2ForQuestionAnswering",
        "token_classification": "Qwen2ForTokenClassification",
    },
    config_from_dict=config_from_dict,
    # older than the other heads' prefix, and kept
    prefix_exceptions={"question_answering": "transformer"},
    tokenizer_class="Qwen2Tokenizer",
    variants={
        "Qwen2.5-0.5B": {
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
            "rope_theta": 1000000.0,
        },
        "Qwen2.5-7B": {
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "max_position_embeddings": 131072,
            "rope_theta": 1000000.0,
        },
    },
)
