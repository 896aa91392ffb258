# SPDX-License-Identifier: Apache-2.0
r"""How fast jft is, side by side with others or with itself in one run.

    python -m experiments.benchmark --suite=step --shape=16x128 \
        --config=configs/sst2.py:pretrained=…/minilm
    python -m experiments.benchmark --suite=trainer --evaluate --seeds=0,1,2 \
        --config=configs/sst2.py:moves=head,epochs=3,pretrained=…/minilm
    python -m experiments.benchmark --suite=gpu --device=gpu

Each suite is a file of `experiments.benchmarks`; its first lines say what it compares.
A row is a config with its arguments, so that a new row needs no code. Sides run in
turn, ``--rounds`` times; tables show medians and ranges, or means over ``--seeds``.
Everything goes to ``--output``, with the machine and the versions; plots lie beside it.
"""

import importlib
import os
from pathlib import Path

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch needs some too

import jax
from absl import flags

from experiments import outputs
from experiments.benchmarks.measure import Settings
from jft import evals
from jft.config import new_flags, read_overrides, run_without_config
from jft.types import InputError

# A new suite is a file of `experiments.benchmarks` with ``measure``, and its name here.
SUITES = (
    "collectives",
    "generation",
    "gpu",
    "growth",
    "loader",
    "startup",
    "step",
    "trainer",
)

OWN_ROWS = ("gpu",)  # whose rows are no configs; --config names some of them

FLAGS = new_flags()
SUITE = flags.DEFINE_enum("suite", None, SUITES, "What is measured.", FLAGS)
CONFIGS = flags.DEFINE_multi_string("config", [], "A config; repeat it.", FLAGS)
SET = flags.DEFINE_multi_string(
    "set", [], "Override in every config, such as data.augment=None.", FLAGS
)
ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds.", 1, flag_values=FLAGS)
STEPS = flags.DEFINE_integer("steps", 10, "Steps a round.", 1, flag_values=FLAGS)
SHAPE = flags.DEFINE_string("shape", None, "Rows x tokens, such as 16x128.", FLAGS)
SEEDS = flags.DEFINE_list("seeds", ["0"], "A run of each, in trainer.", FLAGS)
SPLIT = flags.DEFINE_enum(
    "split", "validation", ["validation", "test"], "What trainer scores.", FLAGS
)
BATCHES = flags.DEFINE_enum(
    "batches", "own", ["own", "grouped", "same"], "What Trainer is fed.", FLAGS
)
EVALUATE = flags.DEFINE_bool("evaluate", False, "After each epoch of trainer.", FLAGS)
DEVICE = flags.DEFINE_enum("device", "cpu", ["cpu", "gpu"], "Where to run.", FLAGS)
AXIS = flags.DEFINE_multi_string(
    "axis", [], "Axis of growth, such as depth or depth=1,2,4; repeat it.", FLAGS
)
OUTPUT = flags.DEFINE_string("output", "benchmark.json", "File to write.", FLAGS)

PACKAGES = ("jax", "flax", "optax", "grain", "numpy", "transformers", "pillow")
PEERS = ("torch", "accelerate")


def main() -> None:
    """Measure, then print and write what was found."""
    settings = read_settings()
    jax.config.update("jax_platforms", {"cpu": "cpu", "gpu": "cuda"}[DEVICE.value])
    jax.config.update("jax_default_matmul_precision", "highest")
    suite = importlib.import_module(f"experiments.benchmarks.{SUITE.value}")
    measured = suite.measure(settings)
    print(measured.text)
    output = Path(OUTPUT.value)
    for name, figure in measured.plots.items():
        figure.savefig(output.with_name(f"{output.stem}_{name}.png"))
    facts = {
        "suite": SUITE.value,
        "settings": settings._asdict(),
        "results": measured.results,
        "machine": outputs.machine(),
        "versions": outputs.versions(PACKAGES, optional=PEERS),
    }
    evals.write_summary(output, facts)


def read_settings() -> Settings:
    """What the flags say.

    Raises:
      InputError: if one is missing or cannot be read.
    """
    if SUITE.value is None or not (CONFIGS.value or SUITE.value in OWN_ROWS):
        raise InputError(
            f"--suite and --config are both needed; got --suite={SUITE.value} and "
            f"--config={CONFIGS.value}. Suites are {list(SUITES)}."
        )
    return Settings(
        configs=CONFIGS.value,
        overrides=read_overrides(SET.value),
        rounds=ROUNDS.value,
        steps=STEPS.value,
        shape=None if SHAPE.value is None else read_shape(SHAPE.value),
        seeds=read_seeds(SEEDS.value),
        split=SPLIT.value,
        batches=BATCHES.value,
        evaluate=EVALUATE.value,
        device=DEVICE.value,
        axes=dict(map(read_axis, AXIS.value)),
    )


def read_shape(text: str) -> tuple[int, int]:
    """Rows and tokens of ``16x128``."""
    parts = text.split("x")
    if len(parts) != 2 or not all(p.isdecimal() and int(p) for p in parts):
        raise InputError(f"--shape is {text!r}; expected rows x tokens, as in 16x128.")
    return int(parts[0]), int(parts[1])


def read_axis(text: str) -> tuple[str, list[int]]:
    """Name and values of ``depth=1,2,4``, in order; none of ``depth``: the usual."""
    name, given, values = text.partition("=")
    words = values.split(",") if given else []
    if not all(word.isdecimal() for word in words):
        raise InputError(f"--axis is {text!r}; expected numbers, as in depth=1,2,4.")
    return name, sorted({int(word) for word in words})


def read_seeds(words: list[str]) -> list[int]:
    """The seeds, of which there is at least one."""
    if not words or not all(word.isdecimal() for word in words):
        raise InputError(f"--seeds is {words}; expected numbers, as in 0,1,2.")
    return [int(word) for word in words]


if __name__ == "__main__":
    run_without_config(main, flag_values=FLAGS)
