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

Arguments: ``pretrained`` (none: a ViT from scratch; else a folder or Hub id, such as
google/vit-base-patch16-224-in21k), ``layout`` of a ViT from scratch (``small``, which
two CPU cores can train; ``vit_ti`` and ``vit_s``, DeiT's and ViT's sizes, to measure),
``moves`` (``all``; ``head``: the classifier alone, without augmentation), ``epochs``,
``quicktest``.
"""

from typing import Any

from configs import common
from jft.config import parse_arg, set_duration

# of a model from scratch: layout -> (width, blocks, heads, pixels, pixels of a patch)
LAYOUTS = {
    "small": (192, 4, 3, 64, 8),
    "vit_ti": (192, 12, 3, 224, 16),
    "vit_s": (384, 12, 6, 224, 16),
}


def get_config(arg: str | None = None) -> Any:
    args = parse_arg(
        arg, pretrained="", epochs=100, layout=tuple(LAYOUTS), moves=("all", "head")
    )
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
        width, blocks, heads, size, patch = LAYOUTS[args.layout]
        config.model.model_config = {
            "hidden_size": width,
            "num_hidden_layers": blocks,
            "num_attention_heads": heads,
            "intermediate_size": 4 * width,
            "image_size": size,
            "patch_size": patch,
            "num_channels": 3,
        }
        config.optim.learning_rate = 7e-4

    if args.moves == "head":
        config.partition.rules = [["classifier/.*", "head"], [".*", "frozen"]]
        config.data.augment = None  # so that the frozen layers run once

    set_duration(config.optim, warmup_percent=10)
    set_duration(config.train, num_epochs=args.epochs)
    config.train.loss_options = {"label_smoothing": 0.1}
    set_duration(config.evals, eval_every_epochs=5)

    if args.quicktest:
        common.quicktest(config)
    return config
