# SPDX-License-Identifier: Apache-2.0
"""A tiny ModernBERT: local and global layers, biases everywhere or none; its sizes."""

from tests.models.row import Row

ROW = Row(
    config={
        "vocab_size": 41,
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "intermediate_size": 40,
        "max_position_embeddings": 16,
        "pad_token_id": 0,
        # by the names of transformers 4
        "global_attn_every_n_layers": 2,
        "global_rope_theta": 50.0,
        "local_rope_theta": 10.0,
        "local_attention": 4,
    },
    variants={
        "every bias, untied, scaled by kind of layer": (
            "masked_lm",
            {
                "norm_bias": True,
                "attention_bias": True,
                "mlp_bias": True,
                "classifier_bias": True,
                "tie_word_embeddings": False,
                "layer_types": ["sliding_attention", "full_attention"],
                "num_hidden_layers": 2,
                "max_position_embeddings": 4,
                "rope_parameters": {
                    "full_attention": {"rope_type": "yarn", "factor": 3.0},
                    "sliding_attention": {
                        "rope_type": "dynamic",
                        "factor": 2.0,
                        "rope_theta": 20.0,
                    },
                },
            },
        ),
        "mean of tokens, an odd window, large eps, scaled": (
            "sequence_classification",
            {
                "classifier_pooling": "mean",
                "local_attention": 3,
                "norm_eps": 0.1,
                "hidden_activation": "silu",
                "classifier_activation": "relu",
                "rope_scaling": {"rope_type": "linear", "factor": 3.0},
            },
        ),
        "no bias at all": ("masked_lm", {"decoder_bias": False}),
    },
    num_params={
        "ModernBERT-base": ("masked_lm", 149_655_232),
        "ModernBERT-large": ("masked_lm", 395_881_664),
    },
    dropout={
        "embedding_dropout": 0.1,
        "attention_dropout": 0.2,
        "mlp_dropout": 0.3,
        "classifier_dropout": 0.4,
    },
    # where the first token is padding, its id's row has no gradient
    left_padding=True,
    block_ends=(r"attn/Wo", r"mlp/Wo"),
)
