# SPDX-License-Identifier: Apache-2.0
"""Training steps of torch's eager mode, from a folder that says all of them.

    python -m experiments.benchmarks.torch_steps --folder=… --steps=3

Run so, it is a process of torch alone, and prints one JSON object: the most bytes that
it had. Nothing here imports jax.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SETTINGS, BATCH, ADAPTER = "steps.json", "batch.npz", "adapter"


class Steps(NamedTuple):
    """What makes a step, beside the model and the batch."""

    head: str  # the class of transformers
    moving: list[str]  # names of the parameters that have a gradient
    learning_rate: float
    weight_decay: float
    clip_norm: float | None
    where: str  # torch's device


def write_steps(
    folder: str | Path, steps: Steps, batch: Mapping[str, np.ndarray]
) -> None:
    """Put all but the model into a folder that has this."""
    Path(folder, SETTINGS).write_text(json.dumps(steps._asdict()))
    np.savez(Path(folder, BATCH), **batch)


def read_model(folder: str | Path, head: str) -> Any:
    """The model of transformers, with PEFT's adapter where there is one."""
    import transformers

    model = getattr(transformers, head).from_pretrained(folder)
    if not Path(folder, ADAPTER).exists():
        return model
    import peft

    own = str(Path(folder, ADAPTER))
    return peft.PeftModel.from_pretrained(model, own, is_trainable=True)


def make_steps(folder: str | Path) -> Callable[[int], None]:
    """What runs steps with gradients, clipping and AdamW."""
    import torch

    steps = Steps(**json.loads(Path(folder, SETTINGS).read_text()))
    model = read_model(folder, steps.head).to(steps.where).train()
    names = set(steps.moving)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name in names
    moving = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(  # fused, as Trainer has it by default
        moving, lr=steps.learning_rate, weight_decay=steps.weight_decay, fused=True
    )
    with np.load(Path(folder, BATCH)) as batch:
        tensors = {n: torch.from_numpy(x).to(steps.where) for n, x in batch.items()}

    def run(count: int) -> None:
        for _ in range(count):
            model(**tensors).loss.backward()
            if steps.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(moving, steps.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
        if steps.where == "cuda":
            torch.cuda.synchronize()

    return run


def most_resident() -> int:
    """The most bytes of memory that this process has had, as Linux counts them."""
    status = Path("/proc/self/status").read_text()
    (kib,) = (x.split()[1] for x in status.splitlines() if x.startswith("VmHWM:"))
    return 1024 * int(kib)


def main() -> None:
    """Run the steps of a folder, and print the most bytes that the process had."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", required=True)
    parser.add_argument("--steps", type=int, required=True)
    flags = parser.parse_args()
    make_steps(flags.folder)(flags.steps)
    print(json.dumps({"peak": most_resident()}))


if __name__ == "__main__":
    main()
