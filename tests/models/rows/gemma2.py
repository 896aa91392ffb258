# SPDX-License-Identifier: Apache-2.0
"""A tiny Gemma 2: capped logits or none, windows in turn; its sizes."""

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
        "query_pre_attn_scalar": 11,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
    },
    variants={
        "untied, uncapped, types, biases, ungrouped, relu, large eps, linear": (
            "causal_lm",
            {
                "tie_word_embeddings": False,
                "attn_logit_softcapping": None,
                "final_logit_softcapping": None,
                "layer_types": ["full_attention", "sliding_attention"],
                "attention_bias": True,
                "num_key_value_heads": 4,
                "hidden_activation": "relu",
                "rms_norm_eps": 0.1,
                "rope_scaling": {"type": "linear", "factor": 3.0},
                "rope_theta": 100.0,
            },
        ),
    },
    num_params={
        "gemma-2-2b": ("causal_lm", 2_614_341_888),
        "gemma-2-9b": ("causal_lm", 9_241_705_984),
    },
    dropout={"attention_dropout": 0.1, "classifier_dropout": 0.2},
    left_padding=True,
    block_ends=(r"self_attn/o_proj", r"mlp/down_proj"),
)
