# SPDX-License-Identifier: Apache-2.0
"""Optimizers by name; ``make_optimizer`` adds all that comes around them.

To add one: write a function ``(decay, *, hyperparams)`` in ``directions.py`` that
chains optax transforms around ``decay``, and name it in ``OPTIMIZERS``.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jft.optim import directions
from jft.optim.directions import Transform
from jft.types import InputError, Schedule


@dataclass(frozen=True, kw_only=True)
class OptimizerRule:
    """How one named optimizer is built.

    ``direction(decay, **hyperparams)`` gives the direction. ``wrap(chain,
    learning_rate, **hyperparams)``, where there is one, goes around the finished chain
    because the method needs the parameters' whole path. Hyperparameters are the
    keyword names of the two.
    """

    direction: Callable[..., Transform]
    wrap: Callable[..., Transform] | None = None

    @property
    def hyperparams(self) -> dict[str, Any]:
        """Every hyperparameter with its default."""
        return _keywords(self.direction) | (_keywords(self.wrap) if self.wrap else {})


def _keywords(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def _chosen(
    function: Callable[..., Any], hyperparams: Mapping[str, Any]
) -> dict[str, Any]:
    return {k: v for k, v in hyperparams.items() if k in _keywords(function)}


def make_direction(
    rule: OptimizerRule, decay: Transform, hyperparams: Mapping[str, Any]
) -> Transform:
    """Build the direction of a rule.

    Args:
      rule: an entry of ``OPTIMIZERS``.
      decay: the transform that adds decoupled decay (or nothing) to updates.
      hyperparams: values that differ from the rule's defaults.

    Returns:
      The direction, without sign and learning rate.

    Raises:
      InputError: if a hyperparameter is unknown, listing the known ones, or is no
        number where its default is one.
    """
    if unknown := hyperparams.keys() - rule.hyperparams.keys():
        raise InputError(
            f"this optimizer has no hyperparameter {sorted(unknown)}; known: "
            f"{sorted(rule.hyperparams)} (learning rate and weight decay are "
            "arguments of make_optimizer)."
        )
    for name, value in hyperparams.items():
        default = rule.hyperparams[name]
        if type(default) is float and type(value) not in (int, float):
            raise InputError(
                f"the hyperparameter {name} is {value!r}; expected a number, as its "
                f"default {default} is."
            )
    return rule.direction(decay, **_chosen(rule.direction, hyperparams))


def make_wrapped(
    rule: OptimizerRule,
    chain: Transform,
    learning_rate: float | Schedule,
    hyperparams: Mapping[str, Any],
) -> Transform:
    """Put a rule's wrap, if it has one, around a finished chain."""
    if rule.wrap is None:
        return chain
    return rule.wrap(chain, learning_rate, **_chosen(rule.wrap, hyperparams))


OPTIMIZERS: dict[str, OptimizerRule] = {
    "adabelief": OptimizerRule(direction=directions.adabelief),
    "adafactor": OptimizerRule(direction=directions.adafactor),
    "adagrad": OptimizerRule(direction=directions.adagrad),
    "adamax": OptimizerRule(direction=directions.adamax),
    "adamw": OptimizerRule(direction=directions.adamw),
    "adan": OptimizerRule(direction=directions.adan),
    "ademamix": OptimizerRule(direction=directions.ademamix),
    "amsgrad": OptimizerRule(direction=directions.amsgrad),
    "lamb": OptimizerRule(direction=directions.lamb),
    "lars": OptimizerRule(direction=directions.lars),
    "lion": OptimizerRule(direction=directions.lion),
    "muon": OptimizerRule(direction=directions.muon),
    "nadam": OptimizerRule(direction=directions.nadam),
    "radam": OptimizerRule(direction=directions.radam),
    "rmsprop": OptimizerRule(direction=directions.rmsprop),
    "sam": OptimizerRule(direction=directions.sgd, wrap=directions.wrap_sam),
    "sam_adamw": OptimizerRule(direction=directions.adamw, wrap=directions.wrap_sam),
    "schedule_free_adamw": OptimizerRule(
        direction=directions.schedule_free_adamw, wrap=directions.wrap_schedule_free
    ),
    "schedule_free_sgd": OptimizerRule(
        direction=directions.schedule_free_sgd, wrap=directions.wrap_schedule_free
    ),
    "sgd": OptimizerRule(direction=directions.sgd),
    "signum": OptimizerRule(direction=directions.signum),
    "yogi": OptimizerRule(direction=directions.yogi),
}
