# SPDX-License-Identifier: Apache-2.0
"""What a run leaves behind: records, pictures, an exported folder, a summary."""

import contextlib
import itertools
import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

import jft
from experiments import build, dataset
from experiments.adapter import exported_as
from experiments.optimizer import make_multiplier
from jft import evals, export, partition, paths, processes, tasks, train
from jft.config import Workdir, to_dict
from jft.evals import MetricLog
from jft.params import adapters
from jft.tables import format_table
from jft.types import FROZEN, Params

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


def open_log(workdir: Workdir) -> contextlib.AbstractContextManager[MetricLog | None]:
    """The records on the disk; None in all processes but the main one."""
    if processes.is_main():
        return evals.MetricLog(workdir.path)
    return contextlib.nullcontext()


def record(
    history: train.History, entry: train.Record, *, log: MetricLog | None
) -> None:
    """Add a record to the history, metrics.jsonl and the TensorBoard events.

    What follows from the history is decided in each process, so all of them keep the
    main one's numbers, whatever another processor may round otherwise.
    """
    kept = processes.from_main(lambda: entry)
    history.append(kept)
    if log is not None:
        log.write(kept)


def phases_of(job: build.Job, result: train.FitResult) -> list[train.Phase]:
    """The phases that a run went through, however they were decided."""
    groups_at = job.plan.open_groups_at
    everything = frozenset(range(job.model.num_layers + 2))
    steps = range(int(result.state.step))
    open_groups = [groups_at(step, result.history) or everything for step in steps]
    listed = []
    for groups, span in itertools.groupby(steps, open_groups.__getitem__):
        inside = list(span)
        listed.append(train.Phase(inside[0], inside[-1] + 1, groups))
    return listed


def write_plots(
    folder: Path,
    job: build.Job,
    result: train.FitResult,
    *,
    test: tasks.Evaluation,
    best_step: int,
) -> list[Path]:
    """Draw the curves, the learning rates, the confusion matrix and the forgetting."""
    folder.mkdir(exist_ok=True)
    config, model, history = job.config, job.model, result.history
    phases = phases_of(job, result)
    opening_steps = evals.opening_names(phases, num_layers=model.num_layers)
    multiplier = make_multiplier(config.optim, model, job.labels)
    rates = {
        model.layer_index(path): multiplier(path)
        for path, label in paths.flatten(job.labels).items()
        if label != FROZEN
    }
    metric, classes = config.evals.metric, model.class_names
    drawn = [
        evals.plot_curves(
            history,
            folder / "curves.png",
            metric=metric,
            opening_steps=opening_steps,
            best_step=best_step,
        ),
        evals.plot_learning_rates(
            evals.learning_rates(job.plan.schedule, rates, phases),
            folder / "learning_rates.png",
            num_layers=model.num_layers,
        ),
    ]
    if shapes := job.loader.shapes:
        group = next(iter(shapes[0]))
        drawn.append(
            evals.plot_lengths(
                job.tables["train"].lengths[group],
                sorted({lengths[group] for lengths in shapes}),
                folder / "lengths.png",
            )
        )
    if job.task.plot is not None:
        to = folder / job.task.plot_name
        drawn.append(job.task.plot(test.references, test.predictions, classes, to))
    if job.source is not None:
        drawn.append(
            evals.plot_forgetting(
                history,
                folder / "forgetting.png",
                metric=metric,
                source_metric=job.source.metric,
                source_name=job.source.name,
                target_name=dataset.name_of(config.data),
                opening_steps=opening_steps,
            )
        )
    return drawn


def write_export(
    folder: Path, job: build.Job, params: Params, scores: Mapping[str, float]
) -> None:
    """Write the Hugging Face folder with a model card."""
    config, model = job.config, job.model
    name, optimizer = dataset.name_of(config.data), config.optim
    card = export.model_card(
        f"{model.family.model_type}-{name}",
        {name: value for name, value in scores.items() if name != "loss"},
        pipeline=job.task.pipeline,
        use=use_of(job.task),
        description=describe_model(job),
        dataset=name,
        data_description=describe_splits(job),
        base_model=base_name(config.model.pretrained),
        hyperparams={
            "optimizer": optimizer.optimizer,
            "learning_rate": optimizer.learning_rate,
            "schedule": optimizer.schedule,
            "layer_decay": optimizer.layer_decay,
            "unfreezing": optimizer.unfreeze.method,
            "global_batch_size": config.data.global_batch_size,
            "length": str(config.train.num),
            "seed": config.seed,
        },
        versions=versions(),
    )
    kind = exported_as(config, model)
    if kind != "apart":
        jft.save(
            folder,
            jft.fold(model, params=params),
            model_card=card,
            max_shard_size=config.export.max_shard_size,
        )
    if kind != "folded":
        jft.save_adapter(
            folder / "adapter" if kind == "both" else folder,
            model,
            params=params,
            base_model=base_name(config.model.pretrained),
            model_card=card,
        )
    if job.task.pipeline == "sentence-similarity" and kind != "apart":
        export.write_sentence_transformers(folder, max_length=config.data.max_length)


def use_of(task: tasks.Task) -> str | None:
    """What the model is for, where the pipeline alone does not say it."""
    named = [name for name in (task.name, task.problem_type) if name in export.USES]
    return named[0] if named else None


def describe_model(job: build.Job) -> str:
    """What the model is, in a sentence."""
    head, name = (
        job.model.family.heads[job.model.task],
        dataset.name_of(job.config.data),
    )
    if job.model.class_names and job.task.problem_type != "regression":
        count = len(job.model.class_names)
        return f"A {head} that tells apart the {count} classes of {name}."
    return f"A {head} fine-tuned on {name} ({job.task.name.replace('_', ' ')})."


def base_name(pretrained: str | None) -> str | None:
    """What the checkpoint is called, without the place of a folder."""
    if pretrained is None or not Path(pretrained).is_dir():
        return pretrained
    return Path(pretrained).resolve().name


def describe_splits(job: build.Job) -> str:
    """How many examples each split has, and where they are from."""
    config = job.config.data
    counts = ", ".join(f"{name} {len(x):,}" for name, x in job.splits.items())
    parts = [f"{counts} examples"]
    if config.split_paths:
        parts.append(f"files {dict(config.split_paths)}")
    if config.split_sizes:
        per_class = " of each class" if config.split_per_class else ""
        parts.append(
            f"sizes {dict(config.split_sizes)}{per_class}, drawn with seed "
            f"{config.split_seed}"
        )
    return f"{'; '.join(parts)}."


def summarize(
    job: build.Job,
    result: train.FitResult,
    *,
    test: tasks.Evaluation,
    forgetting: Mapping[str, Any] | None,
    warnings: Sequence[str],
    facts: Mapping[str, Any],
    cache: Mapping[str, Any],
    memory: Mapping[str, int],
    eval_programs: int,
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """The content of summary.json."""
    config, step = job.config, int(result.state.step)
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
        "cache": cache,
        "memory": memory,
        "programs": {
            "train": sum(phase.num_programs for phase in result.phases),
            "evaluate": eval_programs,
        },
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "forgetting": forgetting,
        "warnings": list(warnings),
        "seed": config.seed,
        "versions": versions(),
        "config": to_dict(config),
    }


def warn(job: build.Job, history: train.History, params: Params) -> list[str]:
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
