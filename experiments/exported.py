# SPDX-License-Identifier: Apache-2.0
"""The folder that a run exports: its model as Hugging Face has them, with a card."""

from collections.abc import Mapping
from pathlib import Path

import jft
from experiments import build, dataset
from experiments.adapter import exported_as
from experiments.outputs import versions
from jft import export, processes, tasks
from jft.types import Params


def write_export(
    folder: Path, job: build.Job, params: Params, scores: Mapping[str, float]
) -> None:
    """Write the model, or its adapter, or both, with a model card. Collective."""
    processes.from_main(lambda: _write(folder, job, params, scores))


def _write(
    folder: Path, job: build.Job, params: Params, scores: Mapping[str, float]
) -> None:
    config, model = job.config, job.model
    card, kind = make_card(job, scores), exported_as(config, model)
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


def make_card(job: build.Job, scores: Mapping[str, float]) -> str:
    """The text of the model card."""
    config, optim, name = job.config, job.config.optim, dataset.name_of(job.config.data)
    return export.model_card(
        f"{job.model.family.model_type}-{name}",
        {name: value for name, value in scores.items() if name != "loss"},
        pipeline=job.task.pipeline,
        use=use_of(job.task),
        description=describe_model(job),
        dataset=name,
        data_description=describe_splits(job),
        base_model=base_name(config.model.pretrained),
        hyperparams={
            "optimizer": optim.optimizer,
            "learning_rate": optim.learning_rate,
            "schedule": optim.schedule,
            "layer_decay": optim.layer_decay,
            "unfreezing": optim.unfreeze.method,
            "global_batch_size": config.data.global_batch_size,
            "length": str(config.train.num),
            "seed": config.seed,
        },
        versions=versions(),
    )


def use_of(task: tasks.Task) -> str | None:
    """What the model is for, where the pipeline alone does not say it."""
    named = [name for name in (task.name, task.problem_type) if name in export.USES]
    return named[0] if named else None


def describe_model(job: build.Job) -> str:
    """What the model is, in a sentence."""
    head = job.model.family.heads[job.model.task]
    name = dataset.name_of(job.config.data)
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
