# SPDX-License-Identifier: Apache-2.0
"""A tiny BART, whose config mBART and Marian start from; its sizes."""

from tests.models.row import Row

# mBART and Marian are built of the same parts
CONFIG = {
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

ROW = Row(
    config=CONFIG,
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
    num_params={
        "bart-base": ("base", 139_420_416),
        "bart-large": ("base", 406_291_456),
    },
    dropout={
        "dropout": 0.1,
        "attention_dropout": 0.2,
        "activation_dropout": 0.3,
        "classifier_dropout": 0.4,
    },
    zero_grad=r".*/k_proj/bias|final_logits_bias",
    encoder_decoder=True,
    block_ends=(r"(?:self|encoder)_attn/out_proj", r"fc2"),
)
