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


# BART, mBART and Marian are built of the same parts
BART = {
    "vocab_size": 41,
    "d_model": 24,
    "encoder_layers": 2,
    "encoder_ffn_dim": 40,
    "encoder_attention_heads": 3,
    "decoder_layers": 2,
    "decoder_ffn_dim": 36,
    "decoder_attention_heads": 4,
    "max_position_embeddings": 12,
    "dropout": 0.0,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}

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
    "t5": Row(
        config={
            "vocab_size": 41,
            "d_model": 24,
            "d_kv": 10,
            "d_ff": 40,
            "num_layers": 2,
            "num_heads": 3,
            "relative_attention_num_buckets": 6,
            "relative_attention_max_distance": 5,
            "dropout_rate": 0.0,
            "eos_token_id": 1,
            "pad_token_id": 0,
            "decoder_start_token_id": 0,
        },
        variants={
            "v1.1, large eps": (
                "seq2seq_lm",
                {
                    "tie_word_embeddings": False,
                    "feed_forward_proj": "gated-gelu",
                    "layer_norm_epsilon": 0.1,
                    "num_decoder_layers": 1,
                },
            ),
            "gated silu, many buckets": (
                "question_answering",
                {
                    "feed_forward_proj": "gated-silu",
                    "relative_attention_num_buckets": 32,
                    "relative_attention_max_distance": 128,
                },
            ),
        },
        scales=[(r"(?:transformer\.)?shared\.weight", 2.0)],
        num_params={
            "t5-small": ("seq2seq_lm", 60_506_624),
            "t5-base": ("seq2seq_lm", 222_903_552),
            "flan-t5-base": ("seq2seq_lm", 247_577_856),
            "flan-t5-large": ("seq2seq_lm", 783_150_080),
        },
        dropout={"dropout_rate": 0.1, "classifier_dropout": 0.3},
        encoder_decoder=True,
    ),
    "bart": Row(
        config=BART,
        variants={
            "untied, scaled, relu": (
                "seq2seq_lm",
                {
                    "tie_word_embeddings": False,
                    "scale_embedding": True,
                    "activation_function": "relu",
                },
            ),
        },
        num_params={"bart-base": ("base", 139_420_416), "bart-large": ("base", 406_291_456)},
        dropout={
            "dropout": 0.1,
            "attention_dropout": 0.2,
            "activation_dropout": 0.3,
            "classifier_dropout": 0.4,
        },
        zero_grad=r".*/k_proj/bias|final_logits_bias",
        encoder_decoder=True,
    ),
    "mbart": Row(
        config=BART,
        variants={
            "untied, scaled, longer decoder": (
                "seq2seq_lm",
                {
                    "tie_word_embeddings": False,
                    "scale_embedding": True,
                    "decoder_layers": 3,
                },
            ),
        },
        num_params={"mbart-large-cc25": ("base", 610_851_840), "mbart-large-50": ("base", 610_879_488)},
        dropout={
            "dropout": 0.1,
            "attention_dropout": 0.2,
            "activation_dropout": 0.3,
            "classifier_dropout": 0.4,
        },
        zero_grad=r".*/k_proj/bias|final_logits_bias",
        encoder_decoder=True,
    ),
    "marian": Row(
        config={
            **BART,
            "activation_function": "swish",
            "scale_embedding": True,
            "pad_token_id": 40,
            "eos_token_id": 0,
            "decoder_start_token_id": 40,
        },
        variants={
            "two tables": (
                "seq2seq_lm",
                {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 43},
            ),
            "untied, unscaled": (
                "seq2seq_lm",
                {"tie_word_embeddings": False, "scale_embedding": False},
            ),
        },
        num_params={"opus-mt-en-de": ("base", 74_410_496)},
        dropout={
            "dropout": 0.1,
            "attention_dropout": 0.2,
            "activation_dropout": 0.3,
        },
        # torch trains the bare model's sinusoids once it has read them; jft never
        zero_grad=r".*/k_proj/bias|final_logits_bias|.*/embed_positions/.*",
        encoder_decoder=True,
    ),
}
