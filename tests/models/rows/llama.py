# SPDX-License-Identifier: Apache-2.0
"""A tiny Llama: groups of heads, all biases, four ways to stretch RoPE; its sizes."""

from tests.models.row import Row

ROW = Row(
    config={
        "vocab_size": 43,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 16,
        "pad_token_id": 0,
    },
    variants={
        "all biases, tied, wide heads, one group, relu, large eps": (
            "causal_lm",
            {
                "attention_bias": True,
                "mlp_bias": True,
                "tie_word_embeddings": True,
                "head_dim": 8,
                "num_key_value_heads": 1,
                "hidden_act": "relu",
                "rms_norm_eps": 0.1,
            },
        ),
        "rope linear, ungrouped, padding's id is a word's": (
            "causal_lm",
            {
                "pad_token_id": 35,
                "num_key_value_heads": None,
                "rope_scaling": {"type": "linear", "factor": 3.0},
                "rope_theta": 100.0,
            },
        ),
        "rope dynamic, text longer than it knows": (
            "causal_lm",
            {
                "max_position_embeddings": 4,
                "rope_parameters": {"rope_type": "dynamic", "factor": 2.0},
            },
        ),
        "rope llama3": (
            "causal_lm",
            {
                "rope_parameters": {
                    "rope_type": "llama3",
                    "rope_theta": 50.0,
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 12,
                },
                "head_dim": 12,
            },
        ),
        "rope yarn": (
            "causal_lm",
            {
                "rope_parameters": {
                    "rope_type": "yarn",
                    "rope_theta": 50.0,
                    "factor": 4.0,
                    "beta_fast": 2.0,
                    "beta_slow": 0.5,
                    "original_max_position_embeddings": 12,
                },
                "head_dim": 12,
            },
        ),
    },
    num_params={
        "TinyLlama-1.1B": ("causal_lm", 1_100_048_384),
        "SmolLM-135M": ("causal_lm", 134_515_008),
        "SmolLM2-360M": ("causal_lm", 361_821_120),
        "Llama-2-7b": ("causal_lm", 6_738_415_616),
        "Llama-3.1-8B": ("causal_lm", 8_030_261_248),
        "Llama-3.2-1B": ("causal_lm", 1_235_814_400),
    },
    dropout={"attention_dropout": 0.1, "classifier_dropout": 0.2},
    left_padding=True,
    block_ends=(r"self_attn/o_proj", r"mlp/down_proj"),
)
