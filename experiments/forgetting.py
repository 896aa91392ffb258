# SPDX-License-Identifier: Apache-2.0
"""Which way of fine-tuning keeps the old task while it learns the new, at what cost?

    python -m experiments.forgetting --config=configs/forgetting.py:model=digits \
        --workdir=runs/forgetting --seeds=5

Runs every method of a config (its argument ``method``) over seeds, each as
`experiments.finetune` does in ``<workdir>/method=…/seed<n>``, and adds WiSE-FT: the
models between the base and each run of ``full``. Writes ``methods.png``,
``results.json`` and a table. Finished runs are not run again, so the same command goes
on where it stopped.

The cost is the operations of all training steps, as the compiler counts them, over
those of ``full``. What EWC and learning without forgetting ask the original model
beside the steps is not in it.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from configs.forgetting import METHODS
from experiments import interpolate, keep, outputs, sweep
from jft import evals, train
from jft.config import new_flags, read_overrides, run_without_config
from jft.tables import format_table
from jft.tasks import mode_of
from jft.types import InputError

FLAGS = new_flags()
CONFIG = flags.DEFINE_string("config", None, "The config: file.py:arguments.", FLAGS)
METHOD = flags.DEFINE_list("methods", list(METHODS), "Methods to compare.", FLAGS)
SET = flags.DEFINE_multi_string(
    "set", [], "Override of every run, such as train.num_steps=100.", FLAGS
)
SEEDS = flags.DEFINE_integer("seeds", 5, "Runs of each method.", 1, flag_values=FLAGS)
ALPHAS = flags.DEFINE_list(
    "alphas", ["0.25", "0.5", "0.75"], "Points of WiSE-FT.", FLAGS
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of all runs.", FLAGS)

FULL, WISE_FT = "full", "wise_ft"


def main() -> None:
    """Run what is not finished, then print, write and draw the comparison."""
    if CONFIG.value is None or WORKDIR.value is None:
        raise InputError(
            "--config=file.py and --workdir=folder are both needed; got "
            f"--config={CONFIG.value} and --workdir={WORKDIR.value}."
        )
    if FULL not in METHOD.value:
        raise InputError(
            f"--methods is {METHOD.value}, without {FULL!r}, which all are held "
            "against; add it."
        )
    alphas = interpolate.read_alphas(ALPHAS.value)
    workdir, overrides = Path(WORKDIR.value), read_overrides(SET.value)
    # every config is read before the first run, so that a fault costs no training
    planned = []
    for method in METHOD.value:
        args = f"method={method}"
        spec = sweep.with_args(CONFIG.value, args)
        for seed in range(SEEDS.value):
            planned.append((args, seed, sweep.load(spec, seed, overrides)))
    for one in planned:
        sweep.run_once(workdir, *one)
    results = {
        method: [
            read_run(sweep.folder_of(workdir, f"method={method}", seed))
            for seed in range(SEEDS.value)
        ]
        for method in METHOD.value
    }
    metrics, between = add_wise_ft(workdir, results[FULL], alphas)
    results |= between
    table = summarize(results)
    evals.write_summary(
        workdir / "results.json",
        {"metrics": metrics, "table": table, "runs": results}
        | {"machine": outputs.machine(), "versions": outputs.versions()},
    )
    evals.plot_methods(
        {name: [run["history"] for run in runs] for name, runs in results.items()},
        table,
        workdir / "methods.png",
        metric=metrics["test"],
        source_metric=metrics["source"],
    )
    print(f"\n{describe(table, metrics)}")
    print(f"\nwritten: {workdir / 'results.json'}, {workdir / 'methods.png'}")


def read_run(folder: Path) -> dict[str, Any]:
    """The figures of one finished run."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    metric = summary["config"]["evals"]["metric"]
    return {
        "test": summary["test"][metric],
        "source_before": summary["forgetting"]["before"],
        "source_after": summary["forgetting"]["after"],
        "operations": sum(
            phase["step_flops"] * (phase["stop"] - phase["start"])
            for phase in summary["phases"]
        ),
        "trainable": summary["params"]["trainable"],
        "history": [r for r in records if r["split"] in ("validation", "source")],
    }


def add_wise_ft(
    workdir: Path, runs: Sequence[Mapping[str, Any]], alphas: Sequence[float]
) -> tuple[dict[str, str], dict[str, list[dict[str, Any]]]]:
    """Score what lies between the base and each run of ``full``."""
    found: dict[str, list[dict[str, Any]]] = {}
    metrics: dict[str, str] = {}
    for seed, run in enumerate(runs):
        folder = sweep.folder_of(workdir, f"method={FULL}", seed)
        job, trained = keep.load_run(folder)
        metrics = interpolate.metric_of(job)
        for point in interpolate.score_points(job, trained, alphas):
            found.setdefault(f"{WISE_FT} {point['alpha']:g}", []).append(
                {
                    **run,
                    "test": point["test"][metrics["test"]],
                    "source_after": point["source"][metrics["source"]],
                    "history": [],
                }
            )
    return metrics, found


def summarize(
    results: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, dict[str, Any]]:
    """Of each method the means and sample standard deviations over its seeds."""
    whole = statistics.fmean(run["operations"] for run in results[FULL])
    table: dict[str, dict[str, Any]] = {}
    for method, runs in results.items():
        row: dict[str, Any] = {"runs": len(runs), "trainable": runs[0]["trainable"]}
        for name in ("test", "source_before", "source_after"):
            values = [run[name] for run in runs]
            sd = statistics.stdev(values) if len(values) > 1 else None
            row[name] = {"mean": statistics.fmean(values), "sd": sd}
        row["cost"] = statistics.fmean(run["operations"] for run in runs) / whole
        table[method] = row
    return table


def describe(table: Mapping[str, Mapping[str, Any]], metrics: Mapping[str, str]) -> str:
    """The table as text, the most of both tasks together first."""

    def kept_and_learned(item: tuple[str, Mapping[str, Any]]) -> float:
        """The best first: a metric that is better when small counts against."""
        of = {"test": metrics["test"], "source_after": metrics["source"]}
        signs = {"max": -1, "min": 1}
        return sum(signs[mode_of(of[x])] * float(item[1][x]["mean"]) for x in of)

    rows = [
        [
            method,
            row["runs"],
            sweep.spread(row["test"]),
            sweep.spread(row["source_after"]),
            f"{row['cost']:.2f}",
            f"{row['trainable']:,}",
        ]
        for method, row in sorted(table.items(), key=kept_and_learned)
    ]
    before = next(iter(table.values()))["source_before"]["mean"]
    headers = ["method", "runs", f"new task, test {metrics['test']}"]
    headers += [f"old task {metrics['source']} ({before:.4g} before)"]
    return format_table(rows, [*headers, "operations", "trainable"])


if __name__ == "__main__":
    train.keep_compiled()
    run_without_config(main, flag_values=FLAGS)
