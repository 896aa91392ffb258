# SPDX-License-Identifier: Apache-2.0
"""A tiny mBART of BART's parts, also with a longer decoder; its sizes."""

from tests.models.row import Row
from tests.models.rows import bart

ROW = Row(
    config=bart.CONFIG,
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
    num_params={
        "mbart-large-cc25": ("base", 610_851_840),
        "mbart-large-50": ("base", 610_879_488),
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
