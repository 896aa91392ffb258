# SPDX-License-Identifier: Apache-2.0
"""What holds a run to the model that it comes from, and what of it can be held."""

from collections.abc import Callable
from typing import Any

import jft
from jft import optim, paths
from jft.config import Config, OptimConfig
from jft.params import adapters
from jft.types import FROZEN, InputError, ParamLabels


def check(config: Config) -> None:
    """Refuse what needs a pre-trained model where there is none.

    Raises:
      InputError: naming the key.
    """
    if config.model.pretrained is not None:
        return
    wanted = {"optim.l2_sp": config.optim.l2_sp, **_rules(config.optim)}
    for key, value in wanted.items():
        if value:
            raise InputError(
                f"{key} is {value}, but model.pretrained is None: a model from scratch "
                "has nothing to return to. Name a checkpoint, or set it to "
                f"{type(value)()}."
            )


def _rules(config: OptimConfig) -> dict[str, Any]:
    return {"optim.l2_sp_rules": list(map(list, config.l2_sp_rules))}


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
        if label != FROZEN and has_start(path, None)
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
