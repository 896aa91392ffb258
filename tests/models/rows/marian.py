# SPDX-License-Identifier: Apache-2.0
"""A tiny Marian of BART's parts: sinusoids, one table of words or two; its size."""

from tests.models.row import Row
from tests.models.rows import bart

ROW = Row(
    config={
        **bart.CONFIG,
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
    block_ends=(r"(?:self|encoder)_attn/out_proj", r"fc2"),
)
