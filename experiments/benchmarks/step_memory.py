# SPDX-License-Identifier: Apache-2.0
"""The most memory that the process of a few steps has: jft's, and torch's.

    python -m experiments.benchmarks.step_memory --config=configs/digits.py --steps=3

Each side is a process of its own, from its start on: imports, loading and, of jft,
compiling are in it. Run so, it is jft's, and prints one JSON object. It reads the
config's data too; torch's is given the batch.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from absl import flags

from experiments import build, run_config
from experiments.benchmarks.measure import Settings
from experiments.benchmarks.startup import environment
from experiments.benchmarks.torch_steps import most_resident
from jft.config import new_flags, read_overrides, run_without_config

FLAGS = new_flags()
CONFIG = flags.DEFINE_string("config", None, "The config.", FLAGS)
SET = flags.DEFINE_multi_string("set", [], "Overrides.", FLAGS)
SHAPE = flags.DEFINE_string("shape", None, "Rows x tokens.", FLAGS)
STEPS = flags.DEFINE_integer("steps", 3, "Steps.", 1, flag_values=FLAGS)


def measure_peaks(name: str, settings: Settings, folder: str | Path) -> dict[str, int]:
    """Bytes of each side on the CPU.

    Args:
      name: the config.
      settings: what the command line says.
      folder: what `torch_steps` reads.
    """
    shape = [f"--shape={'x'.join(map(str, settings.shape))}"] if settings.shape else []
    words = [f"--set={key}={value!r}" for key, value in settings.overrides.items()]
    steps = f"--steps={settings.steps}"
    sides = {
        "jft": ["step_memory", f"--config={name}", *words, *shape, steps],
        "torch": ["torch_steps", f"--folder={folder}", steps],
    }
    return {side: _run(settings, *argv) for side, argv in sides.items()}


def _run(settings: Settings, module: str, *argv: str) -> int:
    command = [sys.executable, "-m", f"experiments.benchmarks.{module}", *argv]
    with tempfile.TemporaryDirectory() as cache:
        kept = environment(settings, cache)
        done = subprocess.run(command, env=kept, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{module} ended with {done.returncode}:\n{done.stderr}")
    return int(json.loads(done.stdout.splitlines()[-1])["peak"])


def main() -> None:
    """Run steps of jft, and print the most bytes that the process had."""
    from experiments import benchmark
    from experiments.benchmarks import step

    job = build.make_job(run_config.load(CONFIG.value, read_overrides(SET.value)))
    shape = benchmark.read_shape(SHAPE.value) if SHAPE.value else None
    batch = step.read_batch(job, shape)
    run, _ = step.make_ours(job, batch)
    run(STEPS.value)
    print(json.dumps({"peak": most_resident()}))


if __name__ == "__main__":
    run_without_config(main, flag_values=FLAGS)
