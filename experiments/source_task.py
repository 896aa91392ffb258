# SPDX-License-Identifier: Apache-2.0
"""What the model could do before: its own head, and the data of that task."""

import dataclasses
import functools
import re
from typing import Any, NamedTuple

import jft
from experiments import dataset, feed
from jft import data, evals, paths, tasks
from jft.config import Config
from jft.tasks import Task, choose_metrics, get_task, mode_of
from jft.types import InputError, Params

LEARN, MEASURE = "train", "test"  # its splits


class OldModel(NamedTuple):
    """The model before its first step, with the head that it came with."""

    model: jft.Pretrained
    head: dict[str, Any]  # its leaves of the tree that the new model drew anew or lacks

    def params(self, tuned: Params) -> Params:
        """Its parameters with a tuned body."""
        return evals.put_head_back(tuned, self.head)


class SourceTask(NamedTuple):
    """The source task of a run; its two splits share no row."""

    config: Config  # of the run, with this task's data, metrics and plain loss
    old: OldModel  # that can do it
    splits: dict[str, data.Examples]  # "test" to measure on, and perhaps "train"
    tables: dict[str, tasks.Table]

    @property
    def name(self) -> str:
        """What its data is called."""
        return dataset.name_of(self.config.data)

    @property
    def task(self) -> Task:
        """What is asked."""
        return get_task(self.config.data.task)

    @property
    def metric(self) -> str:
        """What is compared before and after."""
        assert self.config.evals.metric is not None
        return self.config.evals.metric


def check(config: Config) -> None:
    """Refuse what the settings alone show to be wrong.

    Raises:
      InputError: naming the key.
    """
    source = config.source
    if source.name is None:
        return
    named = {*source.split_sizes, *source.split_paths}
    if MEASURE not in named or named - {LEARN, MEASURE}:
        raise InputError(
            f"source.split_sizes and source.split_paths name {sorted(named)}; expected "
            f"{MEASURE!r}, to measure on, and perhaps {LEARN!r}, to learn from again."
        )
    task = get_task(of_source(config).data.task)
    measured = sorted({"loss", *task.metrics})
    if source.metric is not None and source.metric not in measured:
        raise InputError(
            f"source.metric is {source.metric!r}, which the task {task.name!r} does "
            f"not have; expected one of {measured}."
        )
    dataset.check_options(of_source(config).data, section="source")
    feed.check_augment(of_source(config).data, section="source")


def of_source(config: Config) -> Config:
    """The config of a run, with the source task's settings in the places of data's."""
    source = config.source
    assert source.name is not None
    settings = dataclasses.replace(
        config.data,
        task=source.task or config.data.task,
        task_options=source.task_options,
        source=source.name,
        path=source.path,
        source_options=source.options,
        columns=source.columns,
        class_names=source.class_names,
        split_paths=source.split_paths,
        split_sizes=source.split_sizes,
        split_per_class=source.split_per_class,
        split_stratify=False,
        split_group=source.split_group,
        split_seed=source.split_seed,
        max_length=source.max_length or config.data.max_length,
        batching=source.batching or config.data.batching,
        augment=source.augment,
    )
    usual = choose_metrics(get_task(settings.task), None)
    metric = source.metric or (usual[0] if usual else "loss")
    metrics = tuple(dict.fromkeys([*usual, *({metric} - {"loss"})]))
    return dataclasses.replace(
        config,
        data=settings,
        train=dataclasses.replace(config.train, loss_options={}),
        evals=dataclasses.replace(
            config.evals, metrics=metrics, metric=metric, mode=mode_of(metric)
        ),
    )


def find_old_model(base: jft.Pretrained, model: jft.Pretrained) -> OldModel:
    """Tell the old head from the body, of which there is only one copy.

    Args:
      base: the checkpoint with the head that it came with, and the run's adapter.
      model: what the run trains, before its first step.
    """
    flat = paths.flatten(base.params)
    kept = set(paths.flatten(model.params)) - set(model.report.new)
    names = [re.escape(path) for path in flat if path not in kept]
    # of most decoders there is nothing: one head answers every task
    head = evals.set_head_aside(base.params, head="|".join(names)) if names else {}
    return OldModel(base._replace(params=evals.put_head_back(model.params, head)), head)


def load(config: Config, old: OldModel) -> SourceTask:
    """Read the data of the task that the old model does.

    Raises:
      InputError: if the checkpoint does another task, or the rows do not fit it.
    """
    own, model = of_source(config), old.model
    task = get_task(own.data.task)
    if model.task != task.head:
        raise InputError(
            f"{config.model.pretrained} has the head {model.task!r}, but the source's "
            f"task {task.name!r} needs {task.head!r}; set source.task to what the "
            "model could do before."
        )
    splits = _read(own, model.class_names)
    tables = feed.make_tables(own.data, splits, model)
    return SourceTask(config=own, old=old, splits=splits, tables=tables)


def _read(config: Config, class_names: tuple[str, ...]) -> dict[str, data.Examples]:
    """Its splits, every row checked, with the classes of the model's ids."""
    given = config.data.class_names
    if given and len(given) != len(class_names):
        raise InputError(
            f"source.class_names has {len(given)} names, but the model's own head "
            f"knows {len(class_names)} classes, {list(class_names)}; name those of its "
            "ids, or set it to ()."
        )
    sources = dataset.load_sources(config.data)
    read = functools.partial(
        dataset.read_examples, config.data, class_names=given or class_names
    )
    splits = {name: read(source) for name, source in sources.items()}
    # a class that no row has is no fault: the head is there already
    apart = {f"source.{name}": examples for name, examples in splits.items()}
    data.check_splits(apart, group=config.data.split_group)
    return splits


def describe(source: SourceTask) -> str:
    """Its name and how much there is of it."""
    sizes = {x: len(source.splits[x]) for x in (LEARN, MEASURE) if x in source.splits}
    counts = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
    return f"source task: {source.name} ({counts} examples), by {source.metric}"
