# SPDX-License-Identifier: Apache-2.0
"""One row a family of text models: what the contract and parity tests run over.

A tiny config whose variants turn every field that changes the arithmetic, and the
published sizes. ``families_test.py`` fails when a family has no row.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Row(NamedTuple):
    """How one family is tested."""

    config: Mapping[str, Any]  # tiny, without dropout; two blocks or more
    # name -> (task to compare, changes); the plain config is compared for every head
    variants: Mapping[str, tuple[str, Mapping[str, Any]]]
    num_params: Mapping[str, tuple[str, int]]  # published name -> (task, exact count)
    dropout: Mapping[str, float]  # every rate that training has, all different
    # (regex of a checkpoint's key, factor): brings the logits' spread to about 1
    scales: Sequence[tuple[str, float]] = ()
    # parameters whose gradient is zero but for rounding, such as a key's bias
    zero_grad: str = r"(?!)"
    encoder_decoder: bool = False
    left_padding: bool = False  # one text is padded on the left
    token_types: int = 0  # ids of token types to draw from; 0: the field is left out


# RoBERTa's and XLM-RoBERTa's row; only the published sizes differ
ROBERTA = Row(
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
)

TABLE: dict[str, Row] = {
    "bert": Row(
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
    ),
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA._replace(
        variants={},
        num_params={
            "xlm-roberta-base": ("base", 278_043_648),
            "xlm-roberta-large": ("base", 559_890_432),
        },
    ),
    "distilbert": Row(
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
    ),
    "electra": Row(
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
    ),
    "albert": Row(
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
    ),
}
