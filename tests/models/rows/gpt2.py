# SPDX-License-Identifier: Apache-2.0
"""A tiny GPT-2: every way it scales attention, words tied or not; its sizes."""

from tests.models.row import Row

ROW = Row(
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
    block_ends=(r"attn/c_proj", r"mlp/c_proj"),
)
