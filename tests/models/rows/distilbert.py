# SPDX-License-Identifier: Apache-2.0
"""A tiny DistilBERT: learned positions or sinusoids, words tied or not; its sizes."""

from tests.models.row import Row

ROW = Row(
    config={
        "vocab_size": 41,
        "dim": 24,
        "n_layers": 2,
        "n_heads": 3,
        "hidden_dim": 40,
        "max_position_embeddings": 16,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "qa_dropout": 0.0,
        "seq_classif_dropout": 0.0,
    },
    variants={
        "untied, relu, sinusoids, one head": (
            "masked_lm",
            {
                "tie_word_embeddings": False,
                "activation": "relu",
                "sinusoidal_pos_embds": True,
                "n_heads": 1,
            },
        ),
    },
    scales=[
        # small enough for an eps of 1e-5 to differ from the fixed 1e-12
        (r".*(?:word|position)_embeddings\.weight", 0.1),
        (r"vocab_layer_norm\.weight", 8.0),
        (r"vocab_projector\.weight", 0.15),
        (r"pre_classifier\.weight", 1.5),
    ],
    num_params={
        "distilbert-base-uncased": ("base", 66_362_880),
        "distilbert-base-cased": ("base", 65_190_912),
        "distilbert-base-multilingual-cased": ("base", 134_734_080),
    },
    dropout={
        "dropout": 0.1,
        "attention_dropout": 0.2,
        "qa_dropout": 0.3,
        "seq_classif_dropout": 0.4,
    },
    zero_grad=r".*attention/k_lin/bias",
    left_padding=True,  # the first token is padding then, and has no gradient
    block_ends=(r"attention/out_lin", r"ffn/lin2"),
)
