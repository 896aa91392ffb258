# SPDX-License-Identifier: Apache-2.0
"""A tiny Qwen 2: windows in upper layers, in turn or nowhere; its sizes."""

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
        "use_sliding_window": True,
        "sliding_window": 3,
        "max_window_layers": 1,
        "pad_token_id": 0,
    },
    variants={
        "no window, tied, ungrouped, gelu, large eps, rope linear": (
            "causal_lm",
            {
                "use_sliding_window": False,
                "tie_word_embeddings": True,
                "num_key_value_heads": None,
                "hidden_act": "gelu",
                "rms_norm_eps": 0.1,
                "rope_scaling": {"type": "linear", "factor": 3.0},
            },
        ),
        "layers by type, no block below the windows": (
            "causal_lm",
            {
                "sliding_window": 2,
                "max_window_layers": 0,
                "layer_types": ["sliding_attention", "full_attention"],
            },
        ),
    },
    num_params={
        "Qwen2.5-0.5B": ("causal_lm", 494_032_768),
        "Qwen2.5-7B": ("causal_lm", 7_615_616_512),
    },
    dropout={"attention_dropout": 0.1, "classifier_dropout": 0.2},
    left_padding=True,
    block_ends=(r"self_attn/o_proj", r"mlp/down_proj"),
)
