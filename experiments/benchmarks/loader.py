# SPDX-License-Identifier: Apache-2.0
"""Examples a second of the loader alone, and of the step with batches at hand.

Their ratio says how far the data are from being what a run waits for.
"""

import itertools
import time

import jax

from experiments import build, run_config, training
from experiments.benchmarks.measure import Measured, Settings, median_range, ratios
from jft.tables import format_table


def measure(settings: Settings) -> Measured:
    """Measure both in turn, for each config."""
    results = [measure_one(name, settings) for name in settings.configs]
    rows = [
        [
            result["config"],
            *map(median_range, (result["loader"], result["step"], result["ratio"])),
        ]
        for result in results
    ]
    headers = ["config", "loader /s", "step /s", "ratio"]
    return Measured(results, format_table(rows, headers))


def measure_one(name: str, settings: Settings) -> dict[str, object]:
    """Examples a second, a figure a round."""
    job = build.make_job(run_config.load(name, settings.overrides))
    size, steps = job.config.data.global_batch_size, settings.steps
    state = training.init_state(job)
    step_fn = training.make_train_step(job, state_shardings=None)
    rates: dict[str, list[float]] = {"loader": [], "step": []}
    for turn in range(settings.rounds):
        loader = job.loader.batches(turn * steps)
        next(loader)  # threads have started
        began = time.perf_counter()
        batches = list(itertools.islice(loader, steps))
        rates["loader"].append(size * steps / (time.perf_counter() - began))
        loader.close()
        for batch in batches:  # every shape is compiled before it is timed
            state, _ = step_fn(state, batch)
        jax.block_until_ready(state.trainable)
        began = time.perf_counter()
        for batch in batches:
            state, _ = step_fn(state, batch)
        jax.block_until_ready(state.trainable)
        rates["step"].append(size * steps / (time.perf_counter() - began))
    ratio = ratios(rates["loader"], rates["step"])
    return {"config": run_config.short_name(name), **rates, "ratio": ratio}
