# SPDX-License-Identifier: Apache-2.0
"""One training step of jft and of torch's eager mode, on the same batch.

Same weights, same batch, same frozen parameters, clipping and AdamW, dropout active,
float32. ``--shape=16x128`` fills a batch of 16 rows with 128 tokens each; without it
the loader's first batch is taken. The operations are those that XLA counts in the
compiled step. ``peak MB`` is the most memory that a process of either alone has, from
its start on, see `step_memory`; on a GPU it is not measured.
"""

import functools
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from experiments import build, run_config, training
from experiments.benchmarks import step_memory, torch_peer, torch_steps
from experiments.benchmarks.measure import (
    Measured,
    Settings,
    in_turn,
    median_range,
    peak_bytes,
    ratios,
)
from jft import data, train
from jft.tables import format_table
from jft.types import Batch, InputError


def measure(settings: Settings) -> Measured:
    """Time both in turn, for each config."""
    configs = {
        name: run_config.load(name, settings.overrides) for name in settings.configs
    }
    for config in configs.values():
        torch_peer.check(config)
    results = [measure_one(n, build.make_job(c), settings) for n, c in configs.items()]
    rows = [
        [
            result["config"],
            "x".join(map(str, result["shape"])),
            f"{result['trainable']:,}",
            f"{result['flops'] / 1e9:.1f}",
            *map(median_range, (result["jft"], result["torch"], result["ratio"])),
            peak_text(result["peak"]),
        ]
        for result in results
    ]
    seconds = ["jft s", "torch s", "ratio"]
    headers = ["config", "batch", "trainable", "GFLOP", *seconds, "peak MB (ratio)"]
    return Measured(results, format_table(rows, headers))


def measure_one(name: str, job: build.Job, settings: Settings) -> dict[str, Any]:
    """Seconds of a step, a figure a round."""
    batch = read_batch(job, settings.shape)
    ours, facts = make_ours(job, batch)
    with tempfile.TemporaryDirectory() as folder:
        write_theirs(folder, job, batch, settings.device)
        sides = {"jft": ours, "torch": torch_steps.make_steps(folder)}
        seconds = time_steps(sides, settings)
        peak = {}
        if settings.device == "cpu":
            peak = step_memory.measure_peaks(name, settings, folder)
    ratio = ratios(seconds["jft"], seconds["torch"])
    shape = np.shape(batch["input_ids" if "input_ids" in batch else "pixel_values"])
    which = {"config": run_config.short_name(name), "shape": list(shape)}
    return {**which, **facts, **seconds, "ratio": ratio, "peak": peak}


def read_batch(job: build.Job, shape: tuple[int, int] | None) -> Batch:
    """The loader's first batch, filled to a shape if one is given."""
    stream = job.loader.batches()
    batch = next(stream)
    stream.close()
    return batch if shape is None else filled(batch, *shape)


def peak_text(peak: Mapping[str, int]) -> str | None:
    """Bytes of both sides in MB, and their ratio.

    >>> peak_text({"jft": 600_000_000, "torch": 800_000_000})
    '600 / 800 (0.75)'
    """
    if not peak:
        return None
    ours, theirs = (peak[side] / 1e6 for side in ("jft", "torch"))
    return f"{ours:.0f} / {theirs:.0f} ({ours / theirs:.2f})"


def time_steps(
    sides: Mapping[str, Callable[[int], None]], settings: Settings
) -> dict[str, list[float]]:
    """Seconds of a step of each side, a figure a round; each runs so many steps."""
    seconds = in_turn(
        {name: functools.partial(run, settings.steps) for name, run in sides.items()},
        rounds=settings.rounds,
        settle={name: functools.partial(run, 1) for name, run in sides.items()},
    )
    return {name: [x / settings.steps for x in xs] for name, xs in seconds.items()}


def filled(batch: Batch, rows: int, length: int) -> dict[str, np.ndarray]:
    """A batch of that shape without padding: the real tokens, over and over."""
    batch = data.unpack_batch(batch)
    if "attention_mask" not in batch:
        raise InputError(
            "--shape is given, but the config reads no tokens; leave it out."
        )
    real = np.asarray(batch["attention_mask"]) > 0

    def fill(x: Any) -> np.ndarray:
        x = np.asarray(x)
        if x.shape == real.shape:
            return np.resize(x[real], (rows, length))
        return np.resize(x, (rows, *x.shape[1:]))

    return {name: fill(x) for name, x in batch.items()}


def make_ours(
    job: build.Job, batch: Batch
) -> tuple[Callable[[int], None], Mapping[str, Any]]:
    """What runs steps of jft, and what the compiler knows of one."""
    state = training.init_state(job)
    groups = job.plan.open_groups_at(0, [])
    step_fn = training.make_train_step(job, state_shardings=None)
    before = time.perf_counter()
    compiled = step_fn.compile(state, batch, open_groups=groups)
    facts = {
        "compile_seconds": time.perf_counter() - before,
        "flops": compiled.flops,
        "trainable": compiled.num_params,
        "bytes": peak_bytes(compiled.executable),
        "trainable_bytes": train.bytes_on_a_device(state.trainable),
        "optimizer_bytes": train.bytes_on_a_device(state.opt_state),
    }
    held = [state]

    def run(steps: int) -> None:
        for _ in range(steps):
            held[0], _ = compiled(held[0], batch)
        jax.block_until_ready(held[0].trainable)

    return run, facts


def write_theirs(folder: str, job: build.Job, batch: Batch, device: str) -> None:
    """Put the same steps where torch reads them."""
    torch_peer.write_model(folder, job)
    head = torch_peer.head_of(job)
    layers = torch_peer.moving(job, torch_steps.read_model(folder, head))
    groups, optim = job.plan.open_groups_at(0, []), job.config.optim
    steps = torch_steps.Steps(
        head=head,
        moving=[n for n, i in layers.items() if not groups or i in groups],
        learning_rate=optim.learning_rate,
        weight_decay=optim.weight_decay,
        clip_norm=optim.clip_norm,
        where="cuda" if device == "gpu" else "cpu",
    )
    tensors = torch_peer.make_batch(batch, job.config.data.task)
    arrays = {name: x.numpy() for name, x in tensors.items()}
    torch_steps.write_steps(folder, steps, arrays)
