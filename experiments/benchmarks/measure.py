# SPDX-License-Identifier: Apache-2.0
"""What suites share: what they are given and return, timing in turn, and spreads."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple


class Settings(NamedTuple):
    """What the command line says; a suite uses what concerns it."""

    configs: Sequence[str]  # file.py or file.py:argument,argument=value
    overrides: Mapping[str, Any]  # dotted key -> value, in every config
    rounds: int
    steps: int  # a round
    shape: tuple[int, int] | None  # rows and tokens of a batch; None: the loader's
    seeds: Sequence[int]
    split: str  # that is scored
    batches: str  # that Trainer is fed
    evaluate: bool  # after each epoch
    device: str  # cpu or gpu
    axes: Mapping[str, Sequence[int]]  # of growth -> values; {}: all, the usual ones


class Measured(NamedTuple):
    """What a suite found."""

    results: list[dict[str, Any]]  # a row each; lists have a value a round or seed
    text: str  # the table that people read
    plots: Mapping[str, Any] = {}  # name -> matplotlib figure


def in_turn(
    sides: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    settle: Mapping[str, Callable[[], Any]] | None = None,
) -> dict[str, list[float]]:
    """Seconds of each side, a figure a round; each is called once before, untimed.

    ``settle`` is what a side does first in each round, untimed: right after another
    program has run, the memory of the next one has to be found again.
    """
    for call in sides.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, call in sides.items():
            if settle is not None:
                settle[name]()
            began = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours over theirs, round by round: what slowed down both cancels."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def peak_bytes(executable: Any) -> int:
    """What a compiled program is given, writes and holds in between; aliases once."""
    memory = executable.memory_analysis()
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )


def median_range(values: Sequence[float]) -> str:
    """The median, and from where to where the values go.

    >>> median_range([2.0, 1.0, 4.0])
    '2 (1 to 4)'
    """
    low, high = min(values), max(values)
    return f"{statistics.median(values):.4g} ({low:.4g} to {high:.4g})"


def mean_sd(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation, where there are several values.

    >>> mean_sd([1.0, 3.0]), mean_sd([2.0])
    ('2.00 ± 1.41', '2.00')
    """
    sd = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{sd}"
