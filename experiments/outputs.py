# SPDX-License-Identifier: Apache-2.0
"""What a run says of itself at its end: the summary, and what it ran on."""

import contextlib
import os
import platform
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax

from experiments.build import Job
from experiments.loop import Run
from jft import evals, partition, tasks, train
from jft.config import Workdir, to_dict
from jft.params import adapters
from jft.tables import format_table
from jft.types import Params

PACKAGES = (
    "jft",
    "jax",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "numpy",
    "transformers",
)


def summarize(
    run: Run,
    result: train.FitResult,
    params: Params,
    *,
    test: tasks.Evaluation,
    forgetting: Mapping[str, Any] | None,
    facts: Mapping[str, Any],
    seconds: float,
) -> dict[str, Any]:
    """The content of summary.json; ``params`` and the scores are of the best step."""
    job, config, step = run.job, run.job.config, int(result.state.step)
    metric, mode = config.evals.metric, config.evals.mode
    return {
        "test": test.scores | {"examples": test.num_examples},
        "best": train.best_record(result.history, metric, mode=mode),
        "stopped": result.stopped,
        "steps": step,
        "examples_seen": step * config.data.global_batch_size,
        "nonfinite_steps": int(result.state.nonfinite_total),
        "params": {
            "total": partition.num_params(job.model.params),
            "trainable": partition.num_params(result.state.trainable),
        },
        "phases": [phase._asdict() for phase in result.phases],
        "data": {**facts, "padding": job.loader.padding(step)},
        "cache": run.kept.report(step),
        "memory": run.memory._asdict() | {"total": run.memory.total},
        "programs": {
            "train": sum(phase.num_programs for phase in result.phases),
            "evaluate": run.judges.num_programs,
        },
        "seconds": {"total": round(seconds, 3), **divide_seconds(run, result)},
        "forgetting": forgetting,
        "warnings": warn(job, result.history, params),
        "seed": config.seed,
        "versions": versions(),
        "config": to_dict(config),
    }


def divide_seconds(run: Run, result: train.FitResult) -> dict[str, float]:
    """Where the time of a run went, but for loading and writing."""
    in_phases = sum(phase.seconds for phase in result.phases)
    compiling = sum(phase.compile_seconds for phase in result.phases)
    seconds = {
        "compile": run.compile_seconds + compiling,
        "train": in_phases - run.judges.seconds_in_training,
        "evaluate": run.judges.seconds,
        "data_wait": run.stream.wait_seconds,
    }
    return {name: round(value, 3) for name, value in seconds.items()}


def warn(job: Job, history: train.History, params: Params) -> list[str]:
    """What the records and the exported parameters say about trouble."""
    model, evaluated = job.model, job.config.evals
    drift = evals.weight_drift(
        adapters.without_adapters(model.params),
        adapters.without_adapters(params),
        layer_index=model.layer_index,
        new=model.report.new,
    )
    asked: dict[str, Any] = {}
    if job.source is not None:
        mode = job.source.config.evals.mode
        asked = {"source_metric": job.source.metric, "source_mode": mode}
    return evals.diagnose(
        history, metric=evaluated.metric, mode=evaluated.mode, drift=drift, **asked
    )


def closing_table(summary: Mapping[str, Any], workdir: Workdir) -> str:
    """What a person wants to know at the end, and where the rest is."""
    rows: list[tuple[str, Any]] = [
        (f"test {name}", value) for name, value in summary["test"].items()
    ]
    if summary["best"]:
        rows.append(("best step", summary["best"]["step"]))
    rows.append(("steps", f"{summary['steps']:,} ({summary['stopped']})"))
    if forgetting := summary["forgetting"]:
        values = f"{forgetting['before']:.4f} → {forgetting['after']:.4f}"
        rows.append((f"{forgetting['source']} {forgetting['metric']}", values))
    rows.append(("seconds", summary["seconds"]["total"]))
    programs = summary["programs"]
    rows.append(("programs compiled", sum(programs.values())))
    if (padding := summary["data"]["padding"])["all_tokens"]:
        rows.append(("padding", f"{padding['share']:.1%} of the tokens"))
    if summary["cache"]["use"] == "on":
        rows.append(("rows read from the cache", f"{summary['cache']['rows_read']:,}"))
    for name in ("export", "checkpoints", "plots", "summary_file"):
        path = getattr(workdir, name)
        if path.exists():
            rows.append((name.removesuffix("_file"), str(path)))
    table = format_table(rows, ("result", "value"))
    return "\n\n".join([table, *(f"warning: {x}" for x in summary["warnings"])])


def machine() -> dict[str, Any]:
    """What figures were taken on, and when."""
    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "date": time.strftime("%Y-%m-%d"),
    }


def versions(
    packages: Iterable[str] = PACKAGES, *, optional: Iterable[str] = ()
) -> dict[str, str]:
    """Versions of Python and of the packages that the numbers depend on."""
    found = {name: version(name) for name in packages}
    for name in optional:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return {"python": platform.python_version(), **found}
