# SPDX-License-Identifier: Apache-2.0
"""A tiny GPT-NeoX: heads turned in part or whole, residuals side by side or not."""

from tests.models.row import Row

ROW = Row(
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
    block_ends=(r"attention/dense", r"mlp/dense_4h_to_h"),
)
