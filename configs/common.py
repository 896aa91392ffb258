# SPDX-License-Identifier: Apache-2.0
"""What every config starts from, and what some have in common."""

import os
from pathlib import Path
from typing import Any

from jft.config import Config, make_config_dict, set_duration, to_dict


def base_config() -> Any:
    """Return the ConfigDict of all keys at their defaults, for a config to change."""
    return make_config_dict(to_dict(Config()))


def shared_data(name: str) -> str:
    """Where a data set lies that is too big for a repository, or not ours to give.

    In ``$JFT_DATA`` or else in ``shared/data`` beside the checkout.
    """
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    return str(Path(os.environ.get("JFT_DATA", beside)) / name)


def like_trainer(config: Any) -> None:
    """Optimize, in place, as Hugging Face's Trainer does where nothing else is said."""
    config.partition.rules = [[".*", "all"]]  # whatever the model calls its head
    config.optim.learning_rate = 5e-5
    config.optim.schedule = "linear"
    set_duration(config.optim, warmup_steps=0)
    config.optim.weight_decay = 0.0


def quicktest(config: Any) -> None:
    """Shorten a config, in place, to seconds: every stage runs, nothing is learned."""
    set_duration(config.train, num_steps=12)
    set_duration(config.train, log_every_steps=2)
    set_duration(config.optim, warmup_steps=2)
    set_duration(config.optim.unfreeze, every_steps=2)
    set_duration(config.optim.unfreeze, probe_steps=4)
    set_duration(config.checkpoint, save_every_steps=6)
    set_duration(config.evals, eval_every_steps=6)
