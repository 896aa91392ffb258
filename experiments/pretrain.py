# SPDX-License-Identifier: Apache-2.0
"""Train a model from scratch, such as the letters ViT that jft ships.

    python -m experiments.pretrain --config=configs/letters.py

It is `experiments.finetune` without a checkpoint to start from; the exported folder is
what other configs name as ``model.pretrained``.
"""

from experiments import finetune
from jft.config import Invocation, run
from jft.types import InputError


def main(invocation: Invocation) -> int:
    """Train from scratch."""
    if (folder := invocation.config.model.pretrained) is not None:
        raise InputError(
            f"model.pretrained is {folder!r}, but pre-training starts from scratch; "
            "set it to None, or use experiments.finetune."
        )
    return finetune.main(invocation)


if __name__ == "__main__":
    run(main)
