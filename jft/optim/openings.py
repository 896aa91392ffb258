# SPDX-License-Identifier: Apache-2.0
"""When each group of parameters is open: steps and windows, and who makes them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from jft.types import Group, InputError

Windows: TypeAlias = tuple[tuple[int, int | None], ...]  # [start, stop); None: for ever
OpenAt: TypeAlias = Mapping[Any, int | Windows]  # group -> step it opens, or windows


def normalize_open_at(open_at: OpenAt) -> dict[Group, Windows]:
    """Write every opening as windows ``[start, stop)``.

    An integer is a group that opens there and stays open; no windows is a group that
    only the host opens (see ``plateau_opening``).

    Args:
      open_at: group to opening step or windows.

    Returns:
      Group to windows, sorted, in the given order of groups.

    Raises:
      InputError: if a step is negative, or windows are empty or overlap.

    Example:
      >>> normalize_open_at({"head": 0, "body": ((10, 20), (30, None))})
      {'head': ((0, None),), 'body': ((10, 20), (30, None))}
    """
    return {group: _windows(group, value) for group, value in open_at.items()}


def _windows(group: Group, value: int | Windows) -> Windows:
    spans = ((value, None),) if isinstance(value, int) else tuple(value)
    spans = tuple(sorted((start, stop) for start, stop in spans))
    last_stop: float = 0
    for start, stop in spans:
        end = math.inf if stop is None else stop
        if not last_stop <= start < end:
            raise InputError(
                f"group {group!r} has the opening {value!r}; expected a step of at "
                "least 0, or windows (start, stop) with start < stop that do not "
                "overlap (stop None means for ever)."
            )
        last_stop = end
    return spans


def is_open(windows: Windows, step: Any) -> Any:
    """Say whether a step (an int or a traced scalar) lies in one of the windows.

    >>> is_open(((10, 20), (30, None)), 20), is_open(((10, 20), (30, None)), 30)
    (False, True)
    """
    answer: Any = False
    for start, stop in windows:
        inside = step >= start
        if stop is not None:
            inside = inside & (step < stop)
        answer = inside | answer
    return answer


def all_open(num_layers: int) -> dict[int, int]:
    """Open every layer from the first step on.

    >>> all_open(1)
    {2: 0, 1: 0, 0: 0}
    """
    return dict.fromkeys(range(num_layers + 1, -1, -1), 0)


def top_down(num_layers: int, *, every: int, start: int = 0) -> dict[int, int]:
    """Open the head at ``start``, then one layer more from the top every ``every``.

    Layer L opens at ``start + every * (num_layers + 1 - L)``, the embeddings last.
    Gradual unfreezing of Howard and Ruder 2018 (ULMFiT), section 3.3.

    Args:
      num_layers: number of blocks, embeddings and head not counted.
      every: steps between two openings.
      start: step at which the head opens.

    Returns:
      Layer to step, in opening order.

    Example:
      >>> top_down(2, every=10)
      {3: 0, 2: 10, 1: 20, 0: 30}
    """
    _check_every(every)
    top = num_layers + 1
    return {layer: start + every * (top - layer) for layer in range(top, -1, -1)}


def chain_thaw(num_layers: int, *, every: int) -> dict[int, Windows]:
    """Open the head alone, then each layer alone from the first, then all together.

    Phase 0 is the head, phase 1+L is layer L (embeddings first, the head not again),
    each of ``every`` steps; from phase ``num_layers`` + 2 on everything is open.
    Felbo et al. 2017 (DeepMoji), section 3.3, in the order of their code.

    Args:
      num_layers: number of blocks, embeddings and head not counted.
      every: steps of one phase.

    Returns:
      Layer to windows, in order of first opening.

    Example:
      >>> chain_thaw(1, every=5)
      {2: ((0, 5), (15, None)), 0: ((5, 10), (15, None)), 1: ((10, None),)}
    """
    _check_every(every)
    order = [num_layers + 1, *range(num_layers + 1)]
    everything = every * len(order)
    alone = {layer: every * phase for phase, layer in enumerate(order)}
    return {
        layer: ((start, None),)
        if start + every == everything
        else ((start, start + every), (everything, None))
        for layer, start in alone.items()
    }


def lp_ft(num_layers: int, *, probe_steps: int) -> dict[int, int]:
    """Open the head alone, a linear probe, then everything at once.

    A head that fits the pretrained features before they move keeps them from being
    bent by the gradients of a random one. Kumar et al. 2022 (LP-FT), arXiv 2202.10054.

    Args:
      num_layers: number of blocks, embeddings and head not counted.
      probe_steps: steps of the head alone.

    Returns:
      Layer to step, in opening order.

    Raises:
      InputError: for a probe of no step.

    Example:
      >>> lp_ft(2, probe_steps=10)
      {3: 0, 2: 10, 1: 10, 0: 10}
    """
    if probe_steps < 1:
        raise InputError(
            f"the head is to be probed for {probe_steps} steps; expected at least 1. "
            "To open everything at once, leave unfreezing out."
        )
    top = num_layers + 1
    return {layer: 0 if layer == top else probe_steps for layer in range(top, -1, -1)}


def _check_every(every: int) -> None:
    if every < 1:
        raise InputError(
            f"groups are to open every {every} steps; expected at least 1. To open "
            "everything at once, leave unfreezing out."
        )


def plateau_opening(
    scores: Sequence[float],
    *,
    groups: Sequence[Group],
    patience: int,
    min_delta: float = 0.0,
    mode: Literal["max", "min"] = "max",
) -> frozenset[Group]:
    """Say which groups are open after these scores: one more at each plateau.

    The next group opens when ``patience`` scores in a row were no better than the
    best so far by more than ``min_delta``; the count then starts anew. NaN is never
    better. A pure function of the recorded history, so a resumed run has nothing to
    restore, and a longer history only ever opens more. Give the optimizer
    ``open_at={group: () for group in groups}`` and pass the result as its
    ``open_groups``.

    Args:
      scores: the validation metric of every evaluation so far, oldest first.
      groups: in opening order; the first is open from the start.
      patience: evaluations without improvement before the next group opens.
      min_delta: what counts as better.
      mode: "max" where a higher score is better.

    Returns:
      The open groups.

    Example:
      >>> sorted(plateau_opening([0.5, 0.6, 0.6, 0.5], groups=[3, 2, 1], patience=2))
      [2, 3]
    """
    if patience < 1 or mode not in ("max", "min") or not groups:
        raise InputError(
            f"plateau opening got patience {patience}, mode {mode!r} and "
            f"{len(groups)} groups; expected a patience of at least 1, mode 'max' or "
            "'min', and at least one group."
        )
    num_open, best, stale = 1, -math.inf, 0
    for score in scores:
        value = score if mode == "max" else -score
        if value > best + min_delta:
            best, stale = value, 0
        else:
            stale += 1
        if stale == patience:
            num_open, stale = num_open + 1, 0
    return frozenset(groups[:num_open])
