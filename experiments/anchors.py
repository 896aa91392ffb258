# SPDX-License-Identifier: Apache-2.0
"""What holds a run to the model that it comes from, and what of it can be held."""

import dataclasses
from collections.abc import Callable, Collection
from typing import Any

import jax

import jft
from experiments import feed, objective
from experiments.source_task import LEARN, SourceTask
from jft import optim, partition, paths, train
from jft.config import Config, OptimConfig, TrainConfig
from jft.params import adapters
from jft.tasks import get_task
from jft.types import FROZEN, InputError, ParamLabels, Params


def check(config: Config) -> None:
    """Refuse what EWC cannot be told from.

    Raises:
      InputError: naming the key.
    """
    settings, source = config.optim.ewc, config.source
    if not settings.strength:
        return
    what = f"optim.ewc.strength is {settings.strength}, but"
    if source.name is None or LEARN not in {*source.split_sizes, *source.split_paths}:
        raise InputError(
            f"{what} the section source names no data to learn from: the pull is by "
            "how much the source task needs each parameter. Set source.name and a "
            f"split {LEARN!r}, in source.split_sizes or source.split_paths."
        )
    if config.model.reinit_layers:
        raise InputError(
            f"{what} model.reinit_layers is {config.model.reinit_layers}: layers that "
            "are drawn new know nothing of the source task. Set one of them to 0."
        )
    task = get_task(source.task or config.data.task)
    if settings.targets == "model" and task.divergence not in train.DRAWS:
        raise InputError(
            f'{what} optim.ewc.targets is "model", and targets of the task '
            f'{task.name!r} cannot be drawn from it; set optim.ewc.targets to "data".'
        )


def make_mask(model: jft.Pretrained) -> Callable[[str, Any], bool]:
    """Whether a leaf has a pre-trained value to return to.

    A newly drawn one has none, nor has what an adapter adds to its base.
    """
    base = paths.flatten(adapters.without_adapters(model.params)).keys()
    known = base - set(model.report.new)
    return lambda path, leaf: path in known


def anchored_paths(
    model: jft.Pretrained, labels: ParamLabels, *, key: str
) -> list[str]:
    """The paths that move and have a pre-trained value.

    Raises:
      InputError: if there are none, naming the key that needs them.
    """
    has_start = make_mask(model)
    anchored = [
        path
        for path, label in paths.flatten(labels).items()
        if partition.is_trainable(label) and has_start(path, None)
    ]
    if not anchored:
        raise InputError(
            f"{key} holds parameters near their pre-trained values, but none of those "
            "that move has one: they are new, or an adapter's. Set it to its default, "
            "or let something of the base move (partition.rules, adapter.also_train)."
        )
    return anchored


def l2_sp(
    config: OptimConfig, model: jft.Pretrained, labels: ParamLabels
) -> float | Callable[[str], float]:
    """The strength of L2-SP, of all that is anchored or by path."""
    if not config.l2_sp and not config.l2_sp_rules:
        return 0.0
    anchored = anchored_paths(model, labels, key="optim.l2_sp")
    if not config.l2_sp_rules:
        return config.l2_sp
    return optim.strength_by_rule(
        config.l2_sp_rules, otherwise=config.l2_sp, anchored=anchored
    )


def pulled_paths(
    config: OptimConfig, model: jft.Pretrained, labels: ParamLabels
) -> set[str]:
    """The paths that L2-SP pulls."""
    strength = l2_sp(config, model, labels)
    if not strength:
        return set()
    anchored = anchored_paths(model, labels, key="optim.l2_sp")
    return {x for x in anchored if not callable(strength) or strength(x) > 0}


def decay_mask(
    config: OptimConfig, model: jft.Pretrained, labels: ParamLabels
) -> Callable[[str, Any], bool]:
    """What decays: as ever, but for what L2-SP pulls where that takes its place."""
    if not config.l2_sp_replaces_decay:
        return optim.default_decay_mask
    pulled = pulled_paths(config, model, labels)
    return lambda path, leaf: (
        path not in pulled and optim.default_decay_mask(path, leaf)
    )


def pulled_twice(
    config: OptimConfig, model: jft.Pretrained, labels: ParamLabels
) -> list[str]:
    """Warn of what is pulled to its start and to 0 at once."""
    if not config.weight_decay or config.l2_sp_replaces_decay:
        return []
    leaves = paths.flatten(model.params)
    pulled = sorted(pulled_paths(config, model, labels))
    both = [path for path in pulled if optim.default_decay_mask(path, leaves[path])]
    if not both:
        return []
    return [
        f"{len(both)} leaves, such as {both[0]}, are pulled to their start by "
        f"optim.l2_sp and to 0 by optim.weight_decay {config.weight_decay:g}; the "
        "paper has one in place of the other: set optim.l2_sp_replaces_decay to True."
    ]


def ewc(config: OptimConfig, model: jft.Pretrained, labels: ParamLabels) -> float:
    """The strength of EWC, where there is something to pull."""
    if config.ewc.strength:
        anchored_paths(model, labels, key="optim.ewc.strength")
    return config.ewc.strength


def mixes(config: TrainConfig, model: jft.Pretrained, labels: ParamLabels) -> bool:
    """Whether there is mixout, and something to mix."""
    if config.mixout:
        anchored_paths(model, labels, key="train.mixout")
    return config.mixout > 0


def source_fisher(
    config: Config, source: SourceTask, anchored: Collection[str]
) -> Params:
    """The Fisher information of the source task, of the examples to learn from."""
    task, model = source.task, source.old.model
    # one example a row
    settings = dataclasses.replace(source.config.data, batching="length")
    names = set(anchored)
    labels = paths.map_with_path(
        lambda path, _: "anchored" if path in names else FROZEN, model.params
    )
    return train.diagonal_fisher(
        task.make_apply(model.apply_fn),
        objective.eval_loss(source.config),
        model.params,
        labels,
        feed.make_eval_batches(settings, source.tables[LEARN], model),
        draw_fn=train.DRAWS[str(task.divergence)]
        if config.optim.ewc.targets == "model"
        else None,
        key=jax.random.fold_in(jax.random.key(config.seed), 1),
    )
