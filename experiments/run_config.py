# SPDX-License-Identifier: Apache-2.0
"""The config of a run: read, completed by what its task says, and checked."""

import dataclasses
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

import jax

from configs import common
from experiments import anchors, dataset, feed, objective, source_task, two_heads
from experiments.adapter import make_adapter
from experiments.devices import make_mesh
from jft import export
from jft.config import Config, apply_overrides, load_config_file, resolve, to_dict
from jft.tasks import choose_metrics, get_task, mode_of
from jft.types import InputError

NOTHING_TO_RETURN_TO = "a model from scratch has nothing to return to"
NEED_A_CHECKPOINT = {
    "adapter.method": "what a model from scratch has drawn would stay random",
    "model.quantize": "what has been drawn must train, and codes cannot",
    "model.reinit_layers": "all of a model from scratch is drawn new",
    "source.name": "a model from scratch has nothing to forget",
    "train.lwf.weight": "a model from scratch has no old task",
    "train.replay.share": "a model from scratch has no old task",
    "train.mixout": NOTHING_TO_RETURN_TO,
    "optim.l2_sp": NOTHING_TO_RETURN_TO,
    "optim.l2_sp_rules": NOTHING_TO_RETURN_TO,
    "optim.ewc.strength": NOTHING_TO_RETURN_TO,
}
NEED_ONE_PROCESS = {
    "train.teacher.model": "a teacher runs",
    "train.replay.share": "examples are replayed",
    "train.lwf.weight": "old answers are asked for",
    "optim.ewc.strength": "the Fisher information is computed",
}


def load(spec: str, overrides: Mapping[str, Any] | None = None) -> Config:
    """The config of ``file.py:arguments`` with some values replaced, completed."""
    _, config = load_config_file(spec)
    return complete(resolve(apply_overrides(config, overrides or {})))


def override(config: Config, overrides: Mapping[str, Any]) -> Config:
    """The config of a run with some values replaced, completed anew."""
    return complete(resolve(apply_overrides(to_dict(config), overrides)))


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
    make_adapter(config.adapter)  # refuses options of other methods
    _check_scratch(config)
    _check_processes(config)
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
    if config.model.pretrained is not None:
        return
    for key, why in NEED_A_CHECKPOINT.items():
        if value := attrgetter(key)(config):
            raise InputError(
                f"{key} is {value!r}, but model.pretrained is None: {why}. Name a "
                f"checkpoint, or leave {key} out."
            )


def _check_processes(config: Config) -> None:
    """Refuse what runs beside the steps, in no fixed order, where several take them."""
    if (count := jax.process_count()) == 1:
        return
    for key, what in NEED_ONE_PROCESS.items():
        if value := attrgetter(key)(config):
            raise InputError(
                f"{key} is {value!r}, but {what} in one process only, and there are "
                f"{count}. Run one, with all its devices."
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
