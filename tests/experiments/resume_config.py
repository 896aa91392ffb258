# SPDX-License-Identifier: Apache-2.0
"""A run of seconds with everything in it that a resumed run could get wrong."""

from typing import Any

from configs import common
from jft.config import set_duration


def get_config() -> Any:
    config = common.base_config()
    common.quicktest(config)
    config.data.source = "digits"
    config.data.split_sizes = {"train": 4, "validation": 2, "test": 4}
    config.data.split_per_class = True
    config.data.global_batch_size = 16
    config.data.augment = "small_affine"
    config.source.name = "letters"
    config.source.options = {"num_per_class": 1, "seed": 1}

    # the embeddings come from the base again, the rest from the checkpoint
    config.partition.rules = [
        ["vit/embeddings/.*", "frozen"],
        ["classifier/.*", "head"],
        [".*", "backbone"],
    ]

    config.optim.learning_rate = 1e-2
    config.optim.layer_decay = 0.75
    config.optim.ema_decay = 0.8
    config.optim.unfreeze.method = "top_down"
    set_duration(config.optim.unfreeze, every_steps=3)

    config.train.frozen_dropout = True  # draws that a resumed run must repeat too
    config.train.grad_accum_steps = 2
    config.train.loss_options = {"label_smoothing": 0.1}
    set_duration(config.train, num_steps=60)  # more than early stopping allows
    set_duration(config.train, log_every_steps=1)
    set_duration(config.checkpoint, save_every_steps=1)
    set_duration(config.evals, eval_every_steps=2)
    config.evals.early_stop_patience = 4
    return config
