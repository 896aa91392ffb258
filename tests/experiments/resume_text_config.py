# SPDX-License-Identifier: Apache-2.0
"""Three epochs over few texts, in groups of like length or packed, words hidden anew.

Arguments: ``batching``, as ``data.batching``.
"""

from typing import Any

from configs import domain_lm
from jft.config import parse_arg, set_duration


def get_config(arg: str | None = None) -> Any:
    args = parse_arg(arg, batching=("length", "pack"))
    config = domain_lm.get_config("quicktest")

    config.data.max_length = 32
    config.data.num_lengths = 2
    config.data.batching = args.batching
    # about four batches an epoch
    config.data.global_batch_size = {"length": 16, "pack": 4}[args.batching]

    set_duration(config.train, num_steps=12)
    set_duration(config.train, log_every_steps=1)
    set_duration(config.checkpoint, save_every_steps=1)
    set_duration(config.evals, eval_every_steps=4)
    return config
