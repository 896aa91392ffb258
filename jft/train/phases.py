# SPDX-License-Identifier: Apache-2.0
"""Between two opening steps the trainable set is static: a phase."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jft.optim import is_open, normalize_open_at
from jft.types import Group, InputError


class Phase(NamedTuple):
    """Steps ``start`` to ``stop - 1``, in which exactly these groups move."""

    start: int
    stop: int
    trainable: frozenset[Group]


def groups_at(
    phases: Sequence[Phase],
) -> Callable[[int, Sequence[Any]], frozenset[Group]]:
    """Make the function from a step to the groups open then, as `fit` takes it.

    >>> groups_at(phases({1: 0, 0: 5}, 8))(5, [])
    frozenset({0, 1})
    """

    def open_groups_at(step: int, history: Sequence[Any]) -> frozenset[Group]:
        del history  # the phases are known beforehand
        return next(p.trainable for p in phases if p.start <= step < p.stop)

    return open_groups_at


def phases(open_at: Mapping[Group, Any], num_steps: int) -> list[Phase]:
    """List the phases of a run.

    Args:
      open_at: for each group the step from which it moves, or its
        ``[start, stop)`` windows.
      num_steps: length of the run.

    Returns:
      Adjacent phases that cover steps 0 to ``num_steps - 1``.

    Raises:
      InputError: if a group opens at or after the end, or nothing is open in a
        phase.

    Example:
      >>> [(p.start, p.stop, sorted(p.trainable)) for p in phases({1: 0, 0: 5}, 8)]
      [(0, 5, [1]), (5, 8, [0, 1])]
    """
    windows = normalize_open_at(open_at)
    late = {
        group: spans[0][0]
        for group, spans in windows.items()
        if spans and spans[0][0] >= num_steps
    }
    if late:
        raise InputError(
            f"groups open at steps {late}, but the run ends after step {num_steps}, so "
            "they would never train; open them earlier, train longer, or freeze them."
        )
    edges = {0, num_steps}
    for spans in windows.values():
        edges |= {e for span in spans for e in span if e is not None and e < num_steps}
    bounds = sorted(edges)
    listed = [
        Phase(
            start, stop, frozenset(g for g, w in windows.items() if is_open(w, start))
        )
        for start, stop in itertools.pairwise(bounds)
    ]
    idle = [(p.start, p.stop) for p in listed if not p.trainable]
    if idle:
        raise InputError(
            f"no group is open in steps {idle}; every step must train something, so "
            "open at least one group at step 0 and leave no gap."
        )
    return listed
