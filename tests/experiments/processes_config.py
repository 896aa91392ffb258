# SPDX-License-Identifier: Apache-2.0
"""The run that resumes, shorter, for several processes that share out parameters."""

from typing import Any

from jft.config import set_duration
from tests.experiments import resume_config


def get_config() -> Any:
    config = resume_config.get_config()
    config.train.mesh.fsdp = 2
    set_duration(config.train, num_steps=6)
    set_duration(config.optim.unfreeze, every_steps=3)
    config.checkpoint.keep_last = 10
    return config
