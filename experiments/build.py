# SPDX-License-Identifier: Apache-2.0
"""All that is fixed before the first step: the stages from data to optim, in order."""

from typing import NamedTuple

import jax
import optax

import jft
from experiments import (
    anchors,
    dataset,
    feed,
    forward,
    models,
    source_task,
    two_heads,
)
from experiments.devices import make_mesh
from experiments.optimizer import label_params, make_multiplier, make_optimizer
from experiments.plan import Plan, make_plan
from jft import data, partition, processes, tasks, train
from jft.config import Config
from jft.tasks import Task, get_task
from jft.types import ParamLabels

MANY_PARAMS = 10_000  # an example, from where on a warning is due


class Job(NamedTuple):
    """What is fixed before the first step."""

    config: Config
    splits: dict[str, data.Examples]
    task: Task
    model: jft.Pretrained
    old: source_task.OldModel | None  # what the model was before its new head
    source: source_task.SourceTask | None  # what it could do then
    tables: dict[str, tasks.Table]
    loader: data.TrainLoader
    task_loader: data.TrainLoader  # the same without examples of the source task
    labels: ParamLabels
    asks: two_heads.AsksFn  # whether a step with these groups asks the old head
    plan: Plan
    tx: optax.GradientTransformationExtraArgs
    key: jax.Array  # root of all randomness of training


def make_job(config: Config) -> Job:
    """Go through the stages data, models, params, partition and optim. Collective."""
    return processes.together(lambda: _make_job(config))


def _make_job(config: Config) -> Job:
    key_model, key_train = jax.random.split(jax.random.key(config.seed))
    splits = dataset.load_examples(config)
    model = models.load_model(config, splits["train"], key=key_model)
    shares = make_mesh(config).shape["tensor"]
    model = forward.attend_as_told(config, model, head_shares=shares)
    old = models.load_old_model(config, model)
    source = None if config.source.name is None else source_task.load(config, old)
    tables = feed.make_tables(config.data, splits, model)
    task_loader = feed.make_train_loader(config, tables["train"], model)
    loader = two_heads.add_replay(
        config,
        task_loader,
        source,
        multiple=train.num_shares(make_mesh(config)),
    )
    labels = label_params(config, model)
    plan = make_plan(config, model, labels, loader.steps_per_epoch)
    return Job(
        config=config,
        splits=splits,
        task=get_task(config.data.task),
        model=model,
        old=old,
        source=source,
        tables=tables,
        loader=loader,
        task_loader=task_loader,
        labels=labels,
        asks=two_heads.asks_when(config, model, old, labels),
        plan=plan,
        tx=make_optimizer(config, model, labels, plan),
        key=key_train,
    )


def describe(job: Job) -> str:
    """The table of what will be trained, what is watched besides, and warnings."""
    table = partition.describe(
        job.model.params,
        job.labels,
        layer_index=job.model.layer_index,
        multiplier=make_multiplier(job.config.optim, job.model, job.labels),
        open_at=job.plan.open_at,
    )
    more = [] if job.source is None else [source_task.describe(job.source)]
    if job.plan.auto_rgn is not None:
        more.append(
            "Auto-RGN: beside the table's factors, a layer's rate is scaled by its "
            f"relative gradient norm, measured every {job.plan.auto_rgn} steps"
        )
    silent = two_heads.silent_phases(job.config, job.plan, job.asks)
    more += two_heads.describe(job.config, job.source, job.loader, silent=silent)
    warnings = few_examples(job)
    warnings += anchors.pulled_twice(job.config.optim, job.model, job.labels)
    more += [f"warning: {text}" for text in warnings]
    return "\n\n".join([table, *more])


def few_examples(job: Job) -> list[str]:
    """Warn where much learns from little."""
    trainable, _ = partition.split(job.model.params, job.labels)
    moving, examples = partition.num_params(trainable), len(job.splits["train"])
    if moving <= MANY_PARAMS * examples:
        return []
    return [
        f"{moving:,} parameters learn from {examples:,} examples, more than "
        f"{MANY_PARAMS:,} an example: watch the validation metric for overfitting; a "
        "frozen body, gradual unfreezing or an adapter moves fewer."
    ]
