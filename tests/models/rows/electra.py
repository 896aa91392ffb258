# SPDX-License-Identifier: Apache-2.0
"""A tiny ELECTRA: words narrower than the rest, or as wide; its sizes."""

from tests.models.row import Row

ROW = Row(
    config={
        "vocab_size": 41,
        "embedding_size": 16,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 40,
        "max_position_embeddings": 16,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
    variants={
        "untied, relu, large eps, padding 3": (
            "masked_lm",
            {
                "tie_word_embeddings": False,
                "hidden_act": "relu",
                "layer_norm_eps": 0.1,
                "pad_token_id": 3,
            },
        ),
        "one width, one token type, tanh gelu, one head": (
            "sequence_classification",
            {
                "embedding_size": 24,
                "type_vocab_size": 1,
                "hidden_act": "gelu_new",
                "num_attention_heads": 1,
            },
        ),
    },
    scales=[(r"classifier\..*weight", 1.5), (r"qa_outputs\.weight", 1.5)],
    num_params={
        "electra-small-discriminator": ("base", 13_483_008),
        "electra-base-discriminator": ("base", 108_891_648),
        "electra-large-discriminator": ("base", 334_092_288),
        "electra-base-generator": ("masked_lm", 33_740_602),
        "electra-large-generator": ("masked_lm", 51_295_290),
    },
    dropout={
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.2,
        "classifier_dropout": 0.3,
    },
    zero_grad=r".*attention/self/key/bias",
    left_padding=True,  # the first token is padding then, and has no gradient
    token_types=2,
    block_ends=(r"attention/output/dense", r"\d/output/dense"),
)
