# SPDX-License-Identifier: Apache-2.0
"""A tiny OLMo 2: biases or none, words tied or not, heads grouped or not; its sizes."""

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
        "biases, tied, wide heads, ungrouped, relu, large eps, linear": (
            "causal_lm",
            {
                "attention_bias": True,
                "tie_word_embeddings": True,
                "head_dim": 8,
                "num_key_value_heads": None,
                "hidden_act": "relu",
                "rms_norm_eps": 0.1,
                "rope_scaling": {"type": "linear", "factor": 3.0},
                "rope_theta": 100.0,
            },
        ),
    },
    num_params={
        "OLMo-2-0425-1B": ("causal_lm", 1_484_916_736),
        "OLMo-2-1124-7B": ("causal_lm", 7_298_617_344),
        "OLMo-2-0325-32B": ("causal_lm", 32_234_279_936),
    },
    block_ends=(r"self_attn/o_proj", r"mlp/down_proj"),
    dropout={"attention_dropout": 0.1},
    left_padding=True,
)
