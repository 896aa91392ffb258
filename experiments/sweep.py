# SPDX-License-Identifier: Apache-2.0
"""Compare arguments of a config over seeds: mean ± standard deviation of the metric.

    python -m experiments.sweep --config=configs/digits.py --workdir=runs/sweep \
        --args=recipe=scratch --args=recipe=head --args=recipe=full --seeds=5

Each run is one of `experiments.finetune` in ``<workdir>/<args>/seed<n>``; a seed sets
both ``seed`` and ``data.split_seed``, so the examples that are drawn vary too. Finished
runs are not run again, so the same command goes on where it stopped. Tune by the column
of the validation split; the column of the test split is what to report.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from experiments import finetune, run_config
from jft import evals
from jft.config import (
    Config,
    Invocation,
    new_flags,
    read_overrides,
    run_without_config,
)
from jft.tables import format_table
from jft.types import InputError

FLAGS = new_flags()
CONFIG = flags.DEFINE_string("config", None, "The config: file.py.", FLAGS)
ARGS = flags.DEFINE_multi_string(
    "args", [""], "Argument of the config, a row of the table; repeat it.", FLAGS
)
SET = flags.DEFINE_multi_string(
    "set", [], "Override of every run, such as optim.learning_rate=1e-3.", FLAGS
)
SEEDS = flags.DEFINE_integer("seeds", 5, "Runs of each row.", 1, flag_values=FLAGS)
FIRST = flags.DEFINE_integer(
    "first_seed", 0, "Seeds count from here.", 0, flag_values=FLAGS
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of all runs.", FLAGS)


def main() -> None:
    """Run what is not finished, then print and write the table."""
    if CONFIG.value is None or WORKDIR.value is None:
        raise InputError(
            "--config=file.py and --workdir=folder are both needed; got "
            f"--config={CONFIG.value} and --workdir={WORKDIR.value}."
        )
    workdir = Path(WORKDIR.value)
    seeds = range(FIRST.value, FIRST.value + SEEDS.value)
    # every config is read before the first run, so that a fault costs no training
    overrides = read_overrides(SET.value)
    planned = [
        (args, seed, load(with_args(CONFIG.value, args), seed, overrides))
        for args in ARGS.value
        for seed in seeds
    ]
    runs = [run_once(workdir, *one) for one in planned]
    table = [
        summarize(args, [run for run in runs if run["args"] == args])
        for args in ARGS.value
    ]
    evals.write_summary(workdir / "results.json", {"table": table, "runs": runs})
    print(f"\n{describe(table, metric=planned[0][2].evals.metric)}")
    print(f"\nwritten: {workdir / 'results.json'}")


def with_args(spec: str, args: str) -> str:
    """The config with further arguments."""
    if not args:
        return spec
    return f"{spec},{args}" if ":" in spec else f"{spec}:{args}"


def load(spec: str, seed: int, overrides: Mapping[str, Any]) -> Config:
    """The config of one run."""
    seeded = {"seed": seed, "data.split_seed": seed, **overrides}
    return run_config.load(spec, seeded)


def folder_of(workdir: Path, args: str, seed: int) -> Path:
    """Where one run is."""
    return workdir / (args.replace("/", "_") or "default") / f"seed{seed}"


def run_once(workdir: Path, args: str, seed: int, config: Config) -> dict[str, Any]:
    """Run one config in its folder unless it is finished; return its figures."""
    folder = folder_of(workdir, args, seed)
    print(f"\n{folder}", flush=True)
    finetune.main(Invocation(config, workdir.name, str(folder)))
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    if summary["best"] is None:
        raise InputError(
            f"{folder} was never evaluated; set evals.eval_every to at most its "
            f"{summary['steps']} steps."
        )
    metric, forgetting = config.evals.metric, summary["forgetting"] or {}
    return {
        "args": args,
        "seed": seed,
        "validation": summary["best"][metric],
        "test": summary["test"][metric],
        "best_step": summary["best"]["step"],
        "steps": summary["steps"],
        "seconds": summary["seconds"]["total"],
        "source_before": forgetting.get("before"),
        "source_after": forgetting.get("after"),
    }


def summarize(args: str, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A row of the table: mean and sample standard deviation over the runs."""
    row: dict[str, Any] = {"args": args, "runs": len(runs)}
    for name in ("validation", "test", "seconds", "source_before", "source_after"):
        values = [run[name] for run in runs if run[name] is not None]
        row[name] = {
            "mean": statistics.fmean(values) if values else None,
            "sd": statistics.stdev(values) if len(values) > 1 else None,
        }
    return row


def describe(table: Sequence[Mapping[str, Any]], *, metric: str) -> str:
    """The table as text; before and after are of the source task (forgetting)."""
    names = ("validation", "test", "source_before", "source_after", "seconds")
    rows = [
        [row["args"], row["runs"], *(spread(row[n]) for n in names)] for row in table
    ]
    headers = [f"validation {metric}", f"test {metric}", "before", "after", "seconds"]
    return format_table(rows, ["args", "runs", *headers])


def spread(value: Mapping[str, float | None]) -> str:
    """Mean ± standard deviation, of which either may be unknown."""
    mean, sd = value["mean"], value["sd"]
    if mean is None:
        return ""
    return f"{mean:.4g}" if sd is None else f"{mean:.4g} ± {sd:.2g}"


if __name__ == "__main__":
    run_without_config(main, flag_values=FLAGS)
