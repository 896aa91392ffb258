# SPDX-License-Identifier: Apache-2.0
"""A config of seconds for the tests of the scripts: few digits, one small block."""

from typing import Any

from configs import common
from jft.config import set_duration

MODEL = {
    "image_size": 8,
    "patch_size": 4,
    "num_channels": 1,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def get_config() -> Any:
    config = common.base_config()
    common.quicktest(config)
    config.data.source = "digits"
    config.data.split_sizes = {"train": 4, "validation": 2, "test": 2}
    config.data.split_per_class = True
    config.data.global_batch_size = 8
    config.data.augment = "small_affine"
    config.model.model_config = MODEL
    set_duration(config.train, num_steps=4)
    set_duration(config.train, log_every_steps=1)
    set_duration(config.optim.unfreeze, every_steps=1)
    set_duration(config.checkpoint, save_every_steps=2)
    set_duration(config.evals, eval_every_steps=2)
    return config
