# SPDX-License-Identifier: Apache-2.0
"""Lengths of training in steps, epochs, examples or percent, turned into steps."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from jft.types import InputError

Unit: TypeAlias = Literal["steps", "epochs", "examples", "percent"]
UNITS: tuple[Unit, ...] = ("steps", "epochs", "examples", "percent")


@dataclass(frozen=True, kw_only=True)
class Duration:
    """How long or how often, in the unit the user chose."""

    amount: int | float
    unit: Unit

    def __str__(self) -> str:
        return f"{self.amount} {self.unit}"


def duration_keys(name: str) -> tuple[str, ...]:
    """Return the four keys that can give the duration ``name``.

    >>> duration_keys("num")
    ('num_steps', 'num_epochs', 'num_examples', 'num_percent')
    """
    return tuple(f"{name}_{unit}" for unit in UNITS)


def take_duration(
    name: str, values: Mapping[str, Any], *, required: bool = True
) -> Duration | None:
    """Read the one duration ``name`` of a section; a value of None is not given.

    Args:
      name: the part of the key before the unit; dots before it are the section.
      values: the section; keys of other names are left alone.
      required: whether none at all is an error.

    Returns:
      The duration, or None if none was given and none is required.

    Raises:
      InputError: if two are given, none is given though one is required, or the
        amount is no number of its unit.

    Example:
      >>> take_duration("train.num", {"num_epochs": 3, "num_steps": None})
      Duration(amount=3, unit='epochs')
    """
    last = name.rsplit(".", 1)[-1]
    given = {
        unit: values[key]
        for unit, key in zip(UNITS, duration_keys(last), strict=True)
        if values.get(key) is not None
    }
    if len(given) == 1:
        ((unit, amount),) = given.items()
        return Duration(amount=_check_amount(f"{name}_{unit}", amount), unit=unit)
    if not given and not required:
        return None
    listed = ", ".join(f"{last}_{unit}={value!r}" for unit, value in given.items())
    raise InputError(
        f"{name}_* needs exactly one of {', '.join(duration_keys(last))}; "
        f"given: {listed or 'none'}. Set one and leave the others out or None."
    )


def to_steps(
    duration: Duration,
    *,
    steps_per_epoch: int | float,
    examples_per_step: int,
    num_steps: int | None = None,
) -> int:
    """Turn a duration into steps, rounded up, so that at least it is covered.

    Args:
      duration: what was asked for.
      steps_per_epoch: steps that see every training example once; may be fractional.
      examples_per_step: the global batch size.
      num_steps: the run's length, of which percentages are taken; None while that
        length itself is being computed.

    Returns:
      The number of steps; 0 only for an amount of 0.

    Raises:
      InputError: if the duration is a percentage and ``num_steps`` is None.

    Example:
      >>> two = Duration(amount=2, unit="epochs")
      >>> to_steps(two, steps_per_epoch=3.2, examples_per_step=32)
      7
    """
    if duration.unit == "percent" and num_steps is None:
        raise InputError(
            f"{duration.amount} percent of the run's own length was asked for as the "
            "run's length; give it in steps, epochs or examples."
        )
    steps_a_unit = {
        "steps": 1.0,
        "epochs": steps_per_epoch,
        "examples": 1.0 / examples_per_step,
        "percent": (num_steps or 0) / 100.0,
    }[duration.unit]
    # 1e-9: 50 percent of 110 steps is 55, though floats make it slightly more
    return math.ceil(duration.amount * steps_a_unit - 1e-9)


def _check_amount(key: str, amount: Any) -> int | float:
    whole = key.endswith(("_steps", "_examples"))
    expected = "a whole number" if whole else "a number"
    kinds = (int,) if whole else (int, float)
    if isinstance(amount, bool) or not isinstance(amount, kinds):
        raise InputError(
            f"{key} is {amount!r} ({type(amount).__name__}); expected {expected} of 0 "
            "or more."
        )
    if not 0 <= amount < math.inf:
        raise InputError(f"{key} is {amount!r}; expected {expected} of 0 or more.")
    return amount
