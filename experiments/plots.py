# SPDX-License-Identifier: Apache-2.0
"""The pictures of a run."""

import itertools
from pathlib import Path

from experiments import build, dataset
from experiments.optimizer import make_multiplier
from jft import evals, partition, paths, processes, tasks, train


def write_plots(
    folder: Path,
    job: build.Job,
    result: train.FitResult,
    test: tasks.Evaluation,
    *,
    best_step: int,
) -> None:
    """Draw the training, and how each label of the test split was read. Collective."""

    def write() -> None:
        folder.mkdir(exist_ok=True)
        plot_training(folder, job, result, best_step=best_step)
        if (plot := job.task.plot) is not None:
            to = folder / job.task.plot_name
            plot(test.references, test.predictions, job.model.class_names, to)

    processes.from_main(write)


def plot_training(
    folder: Path, job: build.Job, result: train.FitResult, *, best_step: int
) -> None:
    """Draw the curves, the learning rates, the lengths and the forgetting."""
    config, model, history = job.config, job.model, result.history
    phases = phases_of(job, result)
    opening_steps = evals.opening_names(phases, num_layers=model.num_layers)
    evals.plot_curves(
        history,
        folder / "curves.png",
        metric=config.evals.metric,
        opening_steps=opening_steps,
        best_step=best_step,
    )
    plot_learning_rates(folder, job, phases)
    if shapes := job.loader.shapes:
        group = next(iter(shapes[0]))
        evals.plot_lengths(
            job.tables["train"].lengths[group],
            sorted({lengths[group] for lengths in shapes}),
            folder / "lengths.png",
        )
    if job.source is not None:
        evals.plot_forgetting(
            history,
            folder / "forgetting.png",
            metric=config.evals.metric,
            source_metric=job.source.metric,
            source_name=job.source.name,
            target_name=dataset.name_of(config.data),
            opening_steps=opening_steps,
        )


def plot_learning_rates(
    folder: Path, job: build.Job, phases: list[train.Phase]
) -> None:
    """Draw the learning rate of each layer that moves: its parameters' highest."""
    model = job.model
    multiplier = make_multiplier(job.config.optim, model, job.labels)
    rates: dict[int, float] = {}
    for path, label in paths.flatten(job.labels).items():
        if partition.is_trainable(label):
            layer = model.layer_index(path)
            rates[layer] = max(rates.get(layer, 0.0), multiplier(path))
    evals.plot_learning_rates(
        evals.learning_rates(job.plan.schedule, rates, phases),
        folder / "learning_rates.png",
        num_layers=model.num_layers,
    )


def phases_of(job: build.Job, result: train.FitResult) -> list[train.Phase]:
    """The phases that a run went through, however they were decided."""
    everything = frozenset(range(job.model.num_layers + 2))
    steps = range(int(result.state.step))
    open_groups = [
        job.plan.open_groups_at(step, result.history) or everything for step in steps
    ]
    listed = []
    for groups, span in itertools.groupby(steps, open_groups.__getitem__):
        inside = list(span)
        listed.append(train.Phase(inside[0], inside[-1] + 1, groups))
    return listed
