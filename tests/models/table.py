# SPDX-License-Identifier: Apache-2.0
"""One row a family of text models: what the contract and parity tests run over.

A tiny config whose variants turn every field that changes the arithmetic, and the
published sizes. ``families_test.py`` fails when a family has no row.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Row(NamedTuple):
    """How one family is tested."""

    config: Mapping[str, Any]  # tiny, without dropout; two blocks or more
    # name -> (task to compare, changes); the plain config is compared for every head
    variants: Mapping[str, tuple[str, Mapping[str, Any]]]
    num_params: Mapping[str, tuple[str, int]]  # published name -> (task, exact count)
    dropout: Mapping[str, float]  # every rate that training has, all different
    # (regex of a checkpoint's key, factor): brings the logits' spread to about 1
    scales: Sequence[tuple[str, float]] = ()
    # parameters whose gradient is zero but for rounding, such as a key's bias
    zero_grad: str = r"(?!)"
    encoder_decoder: bool = False
    left_padding: bool = False  # decoders are padded on either side
    token_types: int = 0  # ids of token types to draw from; 0: the field is left out


TABLE: dict[str, Row] = {
    "bert": Row(
        config={
            "vocab_size": 41,
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "intermediate_size": 40,
            "max_position_embeddings": 16,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        variants={
            "untied, tanh gelu, large eps": (
                "masked_lm",
                {
                    "tie_word_embeddings": False,
                    "hidden_act": "gelu_new",
                    "layer_norm_eps": 0.1,
                },
            ),
            "one token type, relu, one head": (
                "sequence_classification",
                {"type_vocab_size": 1, "hidden_act": "relu", "num_attention_heads": 1},
            ),
        },
        scales=[(r"classifier\.weight", 2.0), (r"qa_outputs\.weight", 1.5)],
        num_params={
            "bert-base-uncased": ("base", 109_482_240),
            "bert-large-uncased": ("base", 335_141_888),
            "bert-base-multilingual-cased": ("base", 177_853_440),
            "all-MiniLM-L6-v2": ("base", 22_713_216),
        },
        dropout={
            "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.2,
            "classifier_dropout": 0.3,
        },
        zero_grad=r".*attention/self/key/bias",
        token_types=2,
    ),
    "gpt2": Row(
        config={
            "vocab_size": 41,
            "n_embd": 24,
            "n_layer": 2,
            "n_head": 3,
            "n_positions": 16,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
            "classifier_dropout": 0.0,
        },
        variants={
            "untied, narrow, relu, large eps, scaled by block": (
                "causal_lm",
                {
                    "tie_word_embeddings": False,
                    "n_inner": 40,
                    "activation_function": "relu",
                    "layer_norm_epsilon": 0.1,
                    "scale_attn_by_inverse_layer_idx": True,
                },
            ),
            "unscaled, upcast": (
                "question_answering",
                {
                    "scale_attn_weights": False,
                    "scale_attn_by_inverse_layer_idx": True,
                    "reorder_and_upcast_attn": True,
                    "activation_function": "gelu_fast",
                },
            ),
        },
        num_params={
            "distilgpt2": ("base", 81_912_576),
            "gpt2": ("base", 124_439_808),
            "gpt2-medium": ("base", 354_823_168),
            "gpt2-large": ("base", 774_030_080),
            "gpt2-xl": ("base", 1_557_611_200),
        },
        dropout={
            "resid_pdrop": 0.1,
            "embd_pdrop": 0.2,
            "attn_pdrop": 0.3,
            "classifier_dropout": 0.4,
        },
        left_padding=True,
        token_types=3,
    ),
    "gpt_neox": Row(
        config={
            "vocab_size": 41,
            "hidden_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "intermediate_size": 40,
            "max_position_embeddings": 16,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "classifier_dropout": 0.0,
        },
        variants={
            "tied, in sequence, no bias, half rotary of the old names": (
                "causal_lm",
                {
                    "tie_word_embeddings": True,
                    "use_parallel_residual": False,
                    "attention_bias": False,
                    "rotary_pct": 0.5,
                    "rotary_emb_base": 100,
                    "hidden_act": "relu",
                    "layer_norm_eps": 0.1,
                },
            ),
            "all rotary, linear": (
                "question_answering",
                {
                    "rope_parameters": {
                        "rope_type": "linear",
                        "factor": 2.0,
                        "rope_theta": 50.0,
                        "partial_rotary_factor": 1.0,
                    },
                },
            ),
        },
        num_params={
            "pythia-70m": ("causal_lm", 70_426_624),
            "pythia-160m": ("causal_lm", 162_322_944),
            "pythia-1.4b": ("causal_lm", 1_414_647_808),
            "pythia-6.9b": ("causal_lm", 6_857_302_016),
            "gpt-neox-20b": ("causal_lm", 20_554_567_680),
        },
        dropout={
            "hidden_dropout": 0.1,
            "attention_dropout": 0.2,
            "classifier_dropout": 0.3,
        },
        left_padding=True,
    ),
}
