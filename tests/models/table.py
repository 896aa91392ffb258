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
    left_padding: bool = False  # decoders are padded on either side
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
    left_padding=True,  # positions are counted behind it
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
    "deberta-v2": Row(
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
    ),
    "modernbert": Row(
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
    ),
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA._replace(
        variants={},
        num_params={
            "xlm-roberta-base": ("base", 278_043_648),
            "xlm-roberta-large": ("base", 559_890_432),
        },
    ),
}
