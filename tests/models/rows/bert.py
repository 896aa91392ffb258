# SPDX-License-Identifier: Apache-2.0
"""A tiny BERT: words tied and untied, one token type or two; its sizes."""

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
    },
    variants={
        "untied, tanh gelu, large eps": (
            "masked_lm",
            {
                "tie_word_embeddings": False,
                "hidden_act": "gelu_new",
                "layer_norm_eps": 0.1,
            },
        ),
        "one token type, relu, one head": (
            "sequence_classification",
            {"type_vocab_size": 1, "hidden_act": "relu", "num_attention_heads": 1},
        ),
    },
    scales=[(r"classifier\.weight", 2.0), (r"qa_outputs\.weight", 1.5)],
    num_params={
        "bert-base-uncased": ("base", 109_482_240),
        "bert-large-uncased": ("base", 335_141_888),
        "bert-base-multilingual-cased": ("base", 177_853_440),
        "all-MiniLM-L6-v2": ("base", 22_713_216),
    },
    dropout={
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.2,
        "classifier_dropout": 0.3,
    },
    zero_grad=r".*attention/self/key/bias",
    token_types=2,
    block_ends=(r"attention/output/dense", r"\d/output/dense"),
)
