# SPDX-License-Identifier: Apache-2.0
"""How fast the parts of a run are, side by side in one run.

    python -m experiments.benchmark --suite=loader --config=configs/clothing.py

``loader``: examples a second that the loader makes when nothing else runs, and that the
training step takes when batches are at hand, in turn, ``--rounds`` times; the ratio
says how far the data are from being what a run waits for. Prints medians and ranges,
and writes everything with the machine and the versions to ``--output``.
"""

import itertools
import statistics
import time
from pathlib import Path
from typing import Any

import jax
from absl import flags

from experiments import build, outputs
from jft import evals
from jft.config import load_config_file, new_flags, resolve, run_without_config
from jft.tables import format_table
from jft.types import InputError

FLAGS = new_flags()
SUITE = flags.DEFINE_enum("suite", "loader", ["loader"], "What is measured.", FLAGS)
CONFIGS = flags.DEFINE_multi_string("config", [], "A config; repeat it.", FLAGS)
STEPS = flags.DEFINE_integer("steps", 20, "Steps a round.", 1, flag_values=FLAGS)
ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds.", 1, flag_values=FLAGS)
OUTPUT = flags.DEFINE_string("output", "benchmark.json", "File to write.", FLAGS)

PACKAGES = ("jax", "flax", "optax", "grain", "numpy", "transformers", "pillow")


def main() -> None:
    """Measure each config, then print and write the table."""
    if not CONFIGS.value:
        raise InputError(
            "--config is missing; name what to measure, several if wanted."
        )
    results = [SUITES[SUITE.value](name) for name in CONFIGS.value]
    headers = ["config", "loader /s", "step /s", "ratio"]
    rows = [
        [
            result["config"],
            spread(result["loader"]),
            spread(result["step"]),
            spread(
                [a / b for a, b in zip(result["loader"], result["step"], strict=True)]
            ),
        ]
        for result in results
    ]
    print(format_table(rows, headers))
    facts = {
        "results": results,
        "machine": outputs.machine(),
        "versions": outputs.versions(PACKAGES),
    }
    evals.write_summary(OUTPUT.value, facts)


def measure_loader(name: str) -> dict[str, Any]:
    """Examples a second of the loader and of the step, a figure a round."""
    job = build.make_job(build.complete(resolve(load_config_file(name)[1])))
    size, steps = job.config.data.global_batch_size, STEPS.value
    state = build.init_state(job)
    step_fn = build.make_train_step(job, state_shardings=None)
    figures: dict[str, list[float]] = {"loader": [], "step": []}
    for turn in range(ROUNDS.value):
        loader = job.loader.batches(turn * steps)
        next(loader)  # threads have started
        began = time.perf_counter()
        batches = list(itertools.islice(loader, steps))
        figures["loader"].append(size * steps / (time.perf_counter() - began))
        loader.close()
        for batch in batches:  # every shape is compiled before it is timed
            state, _ = step_fn(state, batch)
        jax.block_until_ready(state.trainable)
        began = time.perf_counter()
        for batch in batches:
            state, _ = step_fn(state, batch)
        jax.block_until_ready(state.trainable)
        figures["step"].append(size * steps / (time.perf_counter() - began))
    return {"config": Path(name.partition(":")[0]).stem, **figures}


def spread(values: list[float]) -> str:
    """The median, and from where to where the values go."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):.4g} ({low:.4g} to {high:.4g})"


SUITES = {"loader": measure_loader}


if __name__ == "__main__":
    run_without_config(main, flag_values=FLAGS)
