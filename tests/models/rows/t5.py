# SPDX-License-Identifier: Apache-2.0
"""A tiny T5: version 1.0 and 1.1, gated or not, few buckets and many; its sizes."""

from tests.models.row import Row

ROW = Row(
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
    block_ends=(r"(?:Self|EncDec)Attention/o", r"DenseReluDense/wo"),
)
