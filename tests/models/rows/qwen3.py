# SPDX-License-Identifier: Apache-2.0
"""A tiny Qwen 3: wide heads, and windows, biases or groups; its sizes."""

from tests.models.row import Row

ROW = Row(
    config={
        "vocab_size": 43,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 16,
        "pad_token_id": 0,
    },
    variants={
        "blocks slide, biases, tied, ungrouped, gelu, large eps, rope linear": (
            "causal_lm",
            {
                "use_sliding_window": True,
                "sliding_window": 3,
                "max_window_layers": 0,
                "attention_bias": True,
                "tie_word_embeddings": True,
                "num_key_value_heads": None,
                "hidden_act": "gelu",
                "rms_norm_eps": 0.1,
                "rope_scaling": {"type": "linear", "factor": 3.0},
            },
        ),
    },
    num_params={
        "Qwen3-0.6B": ("causal_lm", 596_049_920),
        "Qwen3-8B": ("causal_lm", 8_190_735_360),
    },
    dropout={"attention_dropout": 0.1, "classifier_dropout": 0.2},
    left_padding=True,
    block_ends=(r"self_attn/o_proj", r"mlp/down_proj"),
)
