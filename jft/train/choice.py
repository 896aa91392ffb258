# SPDX-License-Identifier: Apache-2.0
"""Another step for other open groups, where a part of the loss moves none of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jft.train.compiled_step import OpenGroups, TrainStep
from jft.types import Group


def choose_step(
    step_of: Callable[[OpenGroups], TrainStep],
    *,
    group_of: Callable[[str], Group] | None,
) -> TrainStep:
    """Make one step of several over the same state, which the open groups choose from.

    Args:
      step_of: open groups to the step, of one optimizer and label tree; called while
        it is compiled.
      group_of: what they were all made with.
    """
    return TrainStep(jitted=_Chosen(step_of=step_of), group_of=group_of)


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    """Called and lowered as the function behind a step is."""

    step_of: Callable[[OpenGroups], TrainStep]

    def __call__(
        self, moving: Any, frozen: Any, batch: Any, open_groups: OpenGroups
    ) -> Any:
        chosen = self.step_of(open_groups)
        return chosen.jitted(moving, frozen, batch, open_groups)

    def lower(
        self, moving: Any, frozen: Any, batch: Any, open_groups: OpenGroups
    ) -> Any:
        chosen = self.step_of(open_groups)
        return chosen.jitted.lower(moving, frozen, batch, open_groups)
