# SPDX-License-Identifier: Apache-2.0
"""A tiny Gemma 3: two rotations, windows in turn, both directions; its sizes."""

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
        "sliding_window": 3,
        "sliding_window_pattern": 2,
        "query_pre_attn_scalar": 11,
        "rope_theta": 50.0,
        "rope_local_base_freq": 20.0,
        "rope_scaling": {"rope_type": "linear", "factor": 3.0},
    },
    variants={
        "untied, capped, types, biases, ungrouped, relu, large eps, llama3": (
            "causal_lm",
            {
                "tie_word_embeddings": False,
                "final_logit_softcapping": 3.0,
                "layer_types": ["full_attention", "sliding_attention"],
                "attention_bias": True,
                "num_key_value_heads": 4,
                "hidden_activation": "relu",
                "rms_norm_eps": 0.1,
                "rope_scaling": None,
                "rope_parameters": {
                    "sliding_attention": {
                        "rope_type": "default",
                        "rope_theta": 9.0,
                    },
                    "full_attention": {
                        "rope_type": "llama3",
                        "rope_theta": 50.0,
                        "factor": 8.0,
                        "low_freq_factor": 1.0,
                        "high_freq_factor": 4.0,
                        "original_max_position_embeddings": 12,
                    },
                },
            },
        ),
        "bidirectional": (
            "base",
            {"use_bidirectional_attention": True, "sliding_window": 5},
        ),
    },
    num_params={
        "gemma-3-270m": ("causal_lm", 268_098_176),
        "gemma-3-1b": ("causal_lm", 999_885_952),
        "embeddinggemma-300m": ("base", 302_863_104),
    },
    dropout={"attention_dropout": 0.1},
    left_padding=True,
    block_ends=(r"self_attn/o_proj", r"mlp/down_proj"),
)
