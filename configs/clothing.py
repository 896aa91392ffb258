# SPDX-License-Identifier: Apache-2.0
"""A ViT tells apart ten kinds of clothes on photographs of mixed sizes.

    python -m experiments.finetune --config=configs/clothing.py

The small clothing data set (A. Grigorev, CC0): JPEGs in one folder a class below
``train``, ``validation`` and ``test``, in ``$JFT_DATA/clothing`` or
``../shared/data/clothing`` beside the checkout.

From scratch, seed 0: accuracy 33.7 % on the 341 photographs of the validation split,
24.5 % on the 372 of the test split (26 November 2026; chance is 10 %): 600 photographs
are few for a ViT that has seen no other, and a logistic regression on thumbnails of
16 x 16 pixels does as well, with 25.5 % on the test split: start from a pre-trained
model.

Arguments: ``pretrained`` (None: a small ViT from scratch, which two CPU cores can
train; else a folder or Hub id, such as google/vit-base-patch16-224-in21k), ``epochs``,
``quicktest``.
"""

from typing import Any

from configs import common
from jft.config import parse_arg, set_duration

SMALL = {
    "hidden_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "intermediate_size": 768,
    "image_size": 64,
    "patch_size": 8,
    "num_channels": 3,
}


def get_config(arg: str | None = None) -> Any:
    args = parse_arg(arg, pretrained="", epochs=100)
    config = common.base_config()

    config.data.source = "folder"
    config.data.path = common.shared_data("clothing")
    config.data.split_paths = {
        "train": "train",
        "validation": "validation",
        "test": "test",
    }
    config.data.split_sizes = {}
    config.data.augment = "photograph"

    if args.pretrained:
        config.model.pretrained = args.pretrained
        config.optim.learning_rate = 1e-4
        config.optim.layer_decay = 0.75
    else:
        config.model.model_config = SMALL
        config.optim.learning_rate = 7e-4

    set_duration(config.optim, warmup_percent=10)
    set_duration(config.train, num_epochs=args.epochs)
    config.train.loss_options = {"label_smoothing": 0.1}
    set_duration(config.evals, eval_every_epochs=5)

    if args.quicktest:
        common.quicktest(config)
    return config
