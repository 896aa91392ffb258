# SPDX-License-Identifier: Apache-2.0
"""Seconds from nothing to the first step of a config, each start in a new process.

A round is a cold start, with an empty ``$JFT_CACHE``, and a warm one, which finds what
the first has kept: its compiled programs and its tokens. ``data+model`` is all that
lies between ``import jft`` and compiling the step: the other imports, the data, the
model and the optimizer's state. Compiling is tracing, which nothing keeps, and XLA's
part, which a warm start reads from the folder.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from experiments import run_config
from experiments.benchmarks.measure import Measured, Settings, median_range, ratios
from jft.config import EXIT_INPUT
from jft.tables import format_table
from jft.types import InputError

ROOT = Path(__file__).parents[2]
STARTS = ("cold", "warm")
COLUMNS = {
    "import": "import jft s",
    "job": "data+model s",
    "compile": "compile s",
    "xla": "of it XLA s",
    "step": "first step s",
    "total": "process s",
}
WANTED = 0.25  # the most that a warm start may compile of what a cold one does


def measure(settings: Settings) -> Measured:
    """Start in turn, for each config."""
    results = [measure_one(name, settings) for name in settings.configs]
    rows = [
        [result["config"], start, *(median_range(result[start][k]) for k in COLUMNS)]
        for result in results
        for start in STARTS
    ]
    table = format_table(rows, ["config", "start", *COLUMNS.values()])
    said = [
        f"{result['config']}: compile s of a warm start over a cold one "
        f"{median_range(result['ratio'])}, of XLA's part alone "
        f"{median_range(result['xla_ratio'])}; at most {WANTED} is wanted."
        for result in results
    ]
    return Measured(results, "\n".join([table, *said]))


def measure_one(name: str, settings: Settings) -> dict[str, Any]:
    """Seconds of each part of both starts, a figure a round."""
    rounds: dict[str, list[dict[str, float]]] = {start: [] for start in STARTS}
    for _ in range(settings.rounds):
        with tempfile.TemporaryDirectory() as cache:
            for start in STARTS:
                rounds[start].append(run_start(name, settings, cache))
    parts = {
        start: {part: [one[part] for one in done] for part in done[0]}
        for start, done in rounds.items()
    }
    of_parts = {
        name: ratios(parts["warm"][part], parts["cold"][part])
        for name, part in (("ratio", "compile"), ("xla_ratio", "xla"))
    }
    return {"config": run_config.short_name(name), **parts, **of_parts}


def run_start(name: str, settings: Settings, cache: str) -> dict[str, float]:
    """One start.

    Raises:
      InputError: as the process says, where the config is at fault.
    """
    words = [f"--set={key}={value!r}" for key, value in settings.overrides.items()]
    module = "experiments.benchmarks.first_step"
    before = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", module, f"--config={name}", *words],
        env=environment(settings, cache),
        capture_output=True,
        text=True,
    )
    total = time.perf_counter() - before
    if done.returncode == EXIT_INPUT:
        raise InputError(done.stderr.strip().rpartition("error: ")[2])
    if done.returncode:
        raise RuntimeError(f"{module} ended with {done.returncode}:\n{done.stderr}")
    return {**json.loads(done.stdout.splitlines()[-1]), "total": total}


def environment(settings: Settings, cache: str) -> dict[str, str]:
    """This process's, with that cache, and as `experiments.benchmark` sets jax."""
    chosen = "JAX_COMPILATION_CACHE_DIR"  # would win over $JFT_CACHE
    kept = {name: value for name, value in os.environ.items() if name != chosen}
    search = [str(ROOT), *filter(None, [kept.get("PYTHONPATH")])]
    return {
        **kept,
        "JFT_CACHE": cache,
        "JAX_PLATFORMS": {"cpu": "cpu", "gpu": "cuda"}[settings.device],
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        "PYTHONPATH": os.pathsep.join(search),
    }
