# SPDX-License-Identifier: Apache-2.0
"""A tiny RoBERTa: positions behind the padding's id; its sizes."""

from tests.models.row import Row

# XLM-RoBERTa's too, but for the published sizes
ROW = Row(
    config={
        "vocab_size": 41,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 40,
        "max_position_embeddings": 16,
        "type_vocab_size": 2,
        "pad_token_id": 1,
        "layer_norm_eps": 1e-5,
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
        "one token type, tanh gelu, one head": (
            "base",
            {"type_vocab_size": 1, "hidden_act": "gelu_new", "num_attention_heads": 1},
        ),
    },
    scales=[(r"classifier\..*weight", 1.5), (r"qa_outputs\.weight", 1.5)],
    num_params={
        "roberta-base": ("base", 124_645_632),
        "roberta-large": ("base", 355_359_744),
        "distilroberta-base": ("base", 82_118_400),
    },
    dropout={
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.2,
        "classifier_dropout": 0.3,
    },
    zero_grad=r".*attention/self/key/bias",
    # positions are counted behind it; the first token has no gradient then
    left_padding=True,
    token_types=2,
    block_ends=(r"attention/output/dense", r"\d/output/dense"),
)
