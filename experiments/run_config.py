# SPDX-License-Identifier: Apache-2.0
"""The config of a run: read, completed by what its task says, and checked."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs import common
from experiments import anchors, dataset, feed, objective, source_task, two_heads
from experiments.adapter import make_adapter
from experiments.devices import make_mesh
from jft import export
from jft.config import Config, apply_overrides, load_config_file, resolve
from jft.tasks import choose_metrics, get_task, mode_of
from jft.types import InputError


def load(spec: str, overrides: Mapping[str, Any] | None = None) -> Config:
    """The config of ``file.py:arguments`` with some values replaced, completed."""
    _, config = load_config_file(spec)
    return complete(resolve(apply_overrides(config, overrides or {})))


def short_name(spec: str) -> str:
    """What a config is called in a table: its file, and its short arguments.

    >>> short_name("configs/sst2.py:moves=head,pretrained=/a/model")
    'sst2 moves=head'
    """
    file, _, arguments = spec.partition(":")
    short = [word for word in arguments.split(",") if "/" not in word]
    return f"{Path(file).stem} {','.join(short)}".strip()


def complete(config: Config) -> Config:
    """Fill in what a config leaves to its task: metrics, and which one chooses.

    Raises:
      InputError: for what the settings alone show to be wrong.
    """
    task, evals = get_task(config.data.task), config.evals
    metrics = choose_metrics(task, evals.metrics)
    metric = evals.metric or (metrics[0] if metrics else "loss")
    evals = dataclasses.replace(
        evals, metrics=metrics, metric=metric, mode=evals.mode or mode_of(metric)
    )
    config = dataclasses.replace(config, evals=evals)
    check(config)
    return config


def usual(task: str, *, max_length: int) -> Config:
    """What every experiment starts from, for a folder without the config of its run."""
    config = common.base_config()
    config.data.task = task
    config.data.max_length = max_length
    return resolve(config)


def check(config: Config) -> None:
    """Refuse what the settings alone show to be wrong, before a workdir is claimed."""
    _check_scratch(config)
    feed.check_augment(config.data)
    _check_metric(config)
    source_task.check(config)
    _check_phases(config)
    objective.check(config)
    two_heads.check(config)
    anchors.check(config)
    dataset.check_options(config.data)
    export.parse_size(config.export.max_shard_size)
    make_mesh(config)


def _check_scratch(config: Config) -> None:
    """Refuse what needs a checkpoint where there is none."""
    if make_adapter(config.adapter) is not None and config.model.pretrained is None:
        raise InputError(
            f"adapter.method is {config.adapter.method!r}, but model.pretrained is "
            "None: what a model from scratch has drawn would stay random. Name a "
            "checkpoint, or set adapter.method to None."
        )
    if config.model.quantize is not None and config.model.pretrained is None:
        raise InputError(
            f"model.quantize is {config.model.quantize!r}, but model.pretrained is "
            "None: what has been drawn must train, and what is quantised cannot. Name "
            "a checkpoint, or set model.quantize to None."
        )


def _check_metric(config: Config) -> None:
    measured = sorted({"loss", *config.evals.metrics})
    if config.evals.metric not in measured:
        raise InputError(
            f"evals.metric is {config.evals.metric!r}, which is not measured; expected "
            f"one of {measured}. Add it to evals.metrics."
        )


def _check_phases(config: Config) -> None:
    """Refuse what one program for all phases cannot do."""
    if config.train.phases != "gated":
        return
    if config.optim.unfreeze.method == "plateau":
        raise InputError(
            'optim.unfreeze.method "plateau" opens layers between two programs, but '
            'train.phases is "gated"; set it to "compiled".'
        )
    if config.optim.unfreeze.method != "none" and not config.train.frozen_dropout:
        raise InputError(
            'train.phases is "gated", one program that cannot tell which layers are '
            "frozen at a step, so that dropout is everywhere; set train.frozen_dropout "
            'to True, or train.phases to "compiled".'
        )
