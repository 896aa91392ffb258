# SPDX-License-Identifier: Apache-2.0
"""The shipped ViT learns printed letters: what ``configs/digits.py`` starts from.

    python -m experiments.pretrain --config=configs/letters.py

About 200,000 parameters, from scratch, on A-Z and a-z rendered from the upright faces
that matplotlib ships. Two CPU cores; minutes. Argument: ``quicktest``.

The shipped model was made by this config with seed 0: 91.0 % of the held-out tenth of
the letters, and 90.8 % of the 520 new ones that ``configs/digits.py`` measures
forgetting on. Some of the 52 classes differ by size alone (c and C, o and O).
"""

from typing import Any

from configs import common
from jft.config import parse_arg, set_duration

# fields of the config.json that transformers reads
MODEL = {
    "image_size": 8,
    "patch_size": 2,
    "num_channels": 1,
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def get_config(arg: str | None = None) -> Any:
    args = parse_arg(arg)
    config = common.base_config()

    config.data.source = "letters"
    config.data.source_options = {"num_per_class": 400, "seed": 0}
    config.data.global_batch_size = 128
    config.data.augment = "small_affine"

    config.model.model_config = MODEL

    config.optim.learning_rate = 2e-3

    set_duration(config.train, num_epochs=30)

    if args.quicktest:
        common.quicktest(config)
        config.data.source_options.num_per_class = 20
    return config
