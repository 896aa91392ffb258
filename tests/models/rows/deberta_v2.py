# SPDX-License-Identifier: Apache-2.0
"""A tiny DeBERTa as version 3, and what version 2 can have besides; their sizes."""

from tests.models.row import Row

ROW = Row(
    config={
        "vocab_size": 41,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 40,
        "max_position_embeddings": 16,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        # as in version 3
        "position_biased_input": False,
        "relative_attention": True,
        "position_buckets": 4,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
    },
    variants={
        "everything else, untied": (
            "masked_lm",
            {
                "position_biased_input": True,
                "position_buckets": -1,
                "max_relative_positions": 3,
                "pos_att_type": "p2c|c2p",
                "share_att_key": False,
                "norm_rel_ebd": "none",
                "embedding_size": 16,
                "type_vocab_size": 3,
                "conv_kernel_size": 3,
                "conv_groups": 2,
                "conv_act": "gelu",
                "tie_word_embeddings": False,
            },
        ),
        "c2p alone, convolution, pooler": (
            "sequence_classification",
            {
                "pos_att_type": ["c2p"],
                "share_att_key": False,
                "conv_kernel_size": 5,
                "pooler_hidden_act": "tanh",
                "hidden_act": "gelu_new",
            },
        ),
        "p2c alone, the newer head, large eps": (
            "masked_lm",
            {
                "pos_att_type": ["p2c"],
                "position_buckets": 7,
                "legacy": False,
                "layer_norm_eps": 0.1,
            },
        ),
        "no distances": (
            "token_classification",
            {"relative_attention": False, "norm_rel_ebd": "none"},
        ),
    },
    scales=[(r"classifier\.weight", 2.0)],
    num_params={
        "deberta-v3-xsmall": ("base", 70_682_112),
        "deberta-v3-small": ("base", 141_304_320),
        "deberta-v3-base": ("base", 183_831_552),
        "deberta-v3-large": ("base", 434_012_160),
        "mdeberta-v3-base": ("base", 278_218_752),
        "deberta-v2-xlarge": ("base", 884_593_152),
        "deberta-v2-xxlarge": ("base", 1_564_549_632),
    },
    dropout={
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.2,
        "pooler_dropout": 0.3,
        "cls_dropout": 0.4,
    },
    # where the first token is padding, its own row of the mask matters
    left_padding=True,
    token_types=3,
    block_ends=(r"attention/output/dense", r"\d/output/dense"),
)
