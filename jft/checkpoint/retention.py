# SPDX-License-Identifier: Apache-2.0
"""Which checkpoints are worth keeping: a pure rule over steps and values."""

import math
from collections.abc import Mapping
from typing import Literal

Mode = Literal["max", "min"]


def steps_to_keep(
    values: Mapping[int, float | None],
    *,
    keep_last: int,
    keep_every: int | None,
    keep_best: int,
    best_mode: Mode,
) -> set[int]:
    """Return the steps to keep: the last, the best, and every n-th.

    Args:
      values: step -> value of the metric there, or None where it is not known.
      keep_last: how many of the newest to keep.
      keep_every: keep the multiples of this step; None keeps none for that reason.
      keep_best: how many of the best to keep.
      best_mode: whether the best value is the largest or the smallest.

    Example:
      >>> sorted(steps_to_keep({10: 0.9, 20: 0.5, 30: None}, keep_last=1,
      ...                      keep_every=None, keep_best=1, best_mode="max"))
      [10, 30]
    """
    newest = sorted(values, reverse=True)[:keep_last]
    every = [step for step in values if keep_every and step % keep_every == 0]
    return {*newest, *every, *rank(values, best_mode)[:keep_best]}


def rank(values: Mapping[int, float | None], best_mode: Mode) -> list[int]:
    """Sort steps from best to worst; of equals the earlier first; NaN and None out.

    >>> rank({1: 0.5, 2: float("nan"), 3: 0.5, 4: 0.7, 5: None}, "max")
    [4, 1, 3]
    """
    sign = -1.0 if best_mode == "max" else 1.0
    known = {s: v for s, v in values.items() if v is not None and not math.isnan(v)}
    return sorted(known, key=lambda step: (sign * known[step], step))
