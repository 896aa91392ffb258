# SPDX-License-Identifier: Apache-2.0
"""A tiny ALBERT: groups of layers that run again, one of two layers; its sizes."""

from tests.models.row import Row

ROW = Row(
    config={
        "vocab_size": 41,
        "embedding_size": 16,
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_hidden_groups": 2,  # the first runs two layers, the second one
        "num_attention_heads": 3,
        "intermediate_size": 40,
        "max_position_embeddings": 16,
        "classifier_dropout_prob": 0.0,
    },
    variants={
        "untied, relu, large eps, padding 3, a group of two": (
            "masked_lm",
            {
                "tie_word_embeddings": False,
                "hidden_act": "relu",
                "layer_norm_eps": 0.1,
                "pad_token_id": 3,
                "inner_group_num": 2,
                "num_hidden_groups": 1,
                "num_hidden_layers": 2,
            },
        ),
        "one width, one token type, gelu, one head": (
            "sequence_classification",
            {
                "num_hidden_groups": 1,
                "num_hidden_layers": 2,
                "embedding_size": 24,
                "type_vocab_size": 1,
                "hidden_act": "gelu",
                "num_attention_heads": 1,
            },
        ),
    },
    scales=[(r"classifier\.weight", 2.0)],
    num_params={
        "albert-base-v2": ("base", 11_683_584),
        "albert-large-v2": ("base", 17_683_968),
        "albert-xlarge-v2": ("base", 58_724_864),
        "albert-xxlarge-v2": ("base", 222_595_584),
    },
    dropout={
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.2,
        "classifier_dropout_prob": 0.3,
    },
    zero_grad=r".*attention/key/bias",
    left_padding=True,  # the first token is padding then, and has no gradient
    token_types=2,
    block_ends=(r"attention/dense", r"ffn_output"),
)
