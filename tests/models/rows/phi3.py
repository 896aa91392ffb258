# SPDX-License-Identifier: Apache-2.0
"""A tiny Phi-3: LongRoPE on short and long texts, heads turned in part; its sizes."""

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
        "sliding_window": 3,
        "pad_token_id": 0,
    },
    variants={
        "part of each head turns, longrope on a short text, no window, tied": (
            "causal_lm",
            {
                "num_attention_heads": 3,
                "num_key_value_heads": None,
                "partial_rotary_factor": 0.5,
                "sliding_window": None,
                "original_max_position_embeddings": 8,
                "max_position_embeddings": 32,
                "rope_scaling": {
                    "type": "longrope",
                    "short_factor": [1.5, 2.0],
                    "long_factor": [3.0, 5.0],
                },
                "tie_word_embeddings": True,
            },
        ),
        "longrope on a long text, gelu, large eps": (
            "causal_lm",
            {
                "original_max_position_embeddings": 4,
                "rope_scaling": {
                    "type": "longrope",
                    "short_factor": [1.0, 1.5, 2.0],
                    "long_factor": [2.0, 3.0, 5.0],
                },
                "hidden_act": "gelu",
                "rms_norm_eps": 0.1,
            },
        ),
    },
    num_params={
        "Phi-3-mini-4k": ("causal_lm", 3_821_079_552),
        "Phi-3-medium-4k": ("causal_lm", 13_960_238_080),
    },
    dropout={
        "attention_dropout": 0.1,
        "resid_pdrop": 0.2,
        "embd_pdrop": 0.3,  # torch has none either
        "classifier_dropout": 0.4,
    },
    left_padding=True,
    block_ends=(r"self_attn/o_proj", r"mlp/down_proj"),
)
