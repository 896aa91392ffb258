# SPDX-License-Identifier: Apache-2.0
"""A tiny Mistral: a sliding window or none, heads in groups; its sizes."""

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
        "no window, tied, wide heads, gelu, large eps, rope linear": (
            "causal_lm",
            {
                "sliding_window": None,
                "tie_word_embeddings": True,
                "head_dim": 8,
                "hidden_act": "gelu",
                "rms_norm_eps": 0.1,
                "rope_scaling": {"type": "linear", "factor": 3.0},
            },
        ),
    },
    num_params={
        "Mistral-7B-v0.1": ("causal_lm", 7_241_732_096),
        "Mistral-7B-v0.3": ("causal_lm", 7_248_023_552),
    },
    dropout={"attention_dropout": 0.1, "classifier_dropout": 0.2},
    left_padding=True,
    block_ends=(r"self_attn/o_proj", r"mlp/down_proj"),
)
