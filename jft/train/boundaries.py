# SPDX-License-Identifier: Apache-2.0
"""Where in a model to keep what frozen layers say, so that most work is saved."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Stretch(NamedTuple):
    """A part of a run with the same lowest open layer."""

    lowest: int  # depth of the lowest layer that moves; all below stand still
    epochs: float  # how often each row is read


def choose_boundaries(stretches: Sequence[Stretch], *, most: int) -> tuple[int, ...]:
    """Choose the boundaries whose activations are kept, from one pass over the rows.

    What is kept at a boundary was computed by all layers below it, and none of them
    may have moved since: in a stretch only boundaries up to the lowest ``lowest`` so
    far can be read. The layers between the highest of these and the lowest open one
    run in every epoch; the pass itself runs those below the highest boundary once.

    Args:
      stretches: of the run that is still to come, in order.
      most: how many boundaries there is room for.

    Returns:
      The boundaries, ascending, that save the most layers, the fewest of them where
      several save as many; empty where none saves any.

    Example:
      >>> top_down = [Stretch(7, 1), Stretch(6, 1), Stretch(5, 1)]
      >>> choose_boundaries(top_down, most=3)
      (5, 6)
      >>> choose_boundaries(top_down, most=1)
      (5,)
      >>> choose_boundaries([Stretch(7, 1)], most=3)  # read once, computed once
      ()
    """
    if not stretches:
        return ()
    readable = np.minimum.accumulate([s.lowest for s in stretches])
    epochs = np.array([s.epochs for s in stretches])

    def reads(low: int, high: int) -> float:
        """Epochs that would read ``low`` where the next boundary kept is ``high``."""
        return float(epochs[(low <= readable) & (readable < high)].sum())

    top = int(readable.max()) + 1

    # layers times epochs saved from a boundary upwards, and the boundaries kept; the
    # best of each number of them
    plans: dict[int, list[tuple[float, tuple[int, ...]]]] = {}
    for low in sorted({int(x) for x in readable if x > 0}, reverse=True):
        plans[low] = [(low * (reads(low, top) - 1), (low,))]
        for count in range(1, most):
            longer = [
                (low * reads(low, high) + saved, (low, *kept))
                for high, of_high in plans.items()
                if high > low and len(of_high) >= count
                for saved, kept in [of_high[count - 1]]
            ]
            if not longer:
                break
            plans[low].append(max(longer))
    allowed = [plan for of_low in plans.values() for plan in of_low if most > 0]
    best = max(allowed, key=lambda plan: (plan[0], -len(plan[1])), default=(0.0, ()))
    return best[1] if best[0] > 0 else ()


def plan_boundaries(
    stretches: Sequence[Stretch], *, most: int
) -> list[tuple[int, ...]]:
    """List the boundaries that are kept in each stretch of a run.

    What no longer holds is dropped; when nothing is left, `choose_boundaries` looks at
    the rest of the run. So a run that goes on from its middle keeps the same ones.

    Example:
      >>> plan_boundaries([Stretch(7, 3), Stretch(6, 1), Stretch(5, 1)], most=3)
      [(5, 6, 7), (5, 6), (5,)]
    """
    planned: list[tuple[int, ...]] = []
    kept: tuple[int, ...] = ()
    for i, stretch in enumerate(stretches):
        kept = tuple(b for b in kept if b <= stretch.lowest)
        kept = kept or choose_boundaries(stretches[i:], most=most)
        planned.append(kept)
    return planned
