# SPDX-License-Identifier: Apache-2.0
"""Slices of named splits, ``train[:80%]``, and the proof that they share no row."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from jft.types import InputError

_SLICE = re.compile(r"(?P<split>[\w.-]+)(\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?")


class Slice(NamedTuple):
    """The rows ``start`` to ``stop - 1`` of a split, counted from 0."""

    split: str
    start: int
    stop: int

    def __str__(self) -> str:
        return f"{self.split}[{self.start}:{self.stop}]"


@runtime_checkable
class Sliced(Protocol):
    """A source that knows which rows it has of what it was cut from."""

    @property
    def rows(self) -> Mapping[str, np.ndarray]:
        """``{what it was cut from: int64 [R, 2]}``, ranges sorted and disjoint."""


def parse_slices(spec: str, sizes: Mapping[str, int], *, name: str) -> list[Slice]:
    """Turn a specification into absolute rows.

    ``split``, ``split[start:stop]`` or several with ``+`` between them. A border is a
    row or, with ``%``, a share of the rows, rounded to the nearest row (halves to the
    even one); a negative border counts from the end.

    Args:
      spec: such as ``"train[:80%]"`` or ``"train+validation[:100]"``.
      sizes: the rows of each split that there is.
      name: of the data set, for messages.

    Raises:
      InputError: if it is no such specification, names no split that there is, names
        a row twice or that is not there, or leaves no row.

    Example:
      >>> parse_slices("train[-25%:]+test", {"train": 40, "test": 10}, name="toy")
      [Slice(split='train', start=30, stop=40), Slice(split='test', start=0, stop=10)]

    Source: the split API of TensorFlow Datasets, rounding "closest".
    """
    slices = [_parse_slice(part.strip(), sizes, name) for part in spec.split("+")]
    for split in {part.split for part in slices}:
        parts = sorted(part for part in slices if part.split == split)
        for before, after in pairwise(parts):
            if after.start < before.stop:
                raise InputError(
                    f"{spec!r} of {name} has the rows {after.start} to "
                    f"{min(before.stop, after.stop) - 1} of {split!r} twice. Let its "
                    "parts not overlap."
                )
    return slices


def _parse_slice(text: str, sizes: Mapping[str, int], name: str) -> Slice:
    match = _SLICE.fullmatch(text)
    if match is None:
        raise InputError(
            f"{text!r} is no slice of a split; expected one like 'train', "
            "'train[:80%]' or 'train[100:200]', or several with '+' between them."
        )
    split = match["split"]
    if split not in sizes:
        raise InputError(
            f"{name} has no split {split!r}; it has {sorted(sizes)}. Name one of them."
        )
    size = sizes[split]
    start = _border(match["start"] or "0", size)
    stop = size if match["stop"] is None else _border(match["stop"], size)
    if not 0 <= start < stop <= size:
        raise InputError(
            f"{text!r} begins at row {start} and ends before row {stop}; {split!r} of "
            f"{name} has {size} rows, counted from 0. Ask for at least one of them."
        )
    return Slice(split, start, stop)


def _border(text: str, size: int) -> int:
    value = int(text.removesuffix("%"))
    if text.endswith("%"):
        if abs(value) > 100:
            raise InputError(f"{text} is more than there is; expected at most 100%.")
        value = round(value * size / 100)
    # by the sign, not the value: the last 1 % of 40 rows is none, not all of them
    return value + size if text.startswith("-") else value


def slice_rows(slices: Sequence[Slice], *, name: str) -> dict[str, np.ndarray]:
    """Return ``{"name, split": int64 [R, 2]}``, as `Sliced` has it."""
    return {
        f"{name}, {split}": np.array(
            sorted((s.start, s.stop) for s in slices if s.split == split), np.int64
        )
        for split in sorted({s.split for s in slices})
    }


def place_of(slices: Sequence[Slice], index: int, *, name: str) -> str:
    """Say which row of which split the row ``index`` of some slices is.

    >>> place_of([Slice("train", 30, 40), Slice("test", 0, 10)], 12, name="toy")
    'toy, test, row 2'
    """
    for part in slices:
        if index < part.stop - part.start:
            return f"{name}, {part.split}, row {part.start + index}"
        index -= part.stop - part.start
    raise IndexError(index)


def index_ranges(indices: np.ndarray) -> np.ndarray:
    """Return the runs of consecutive numbers, int64 [R, 2], stop excluded.

    >>> index_ranges(np.array([7, 2, 3, 4])).tolist()
    [[2, 5], [7, 8]]
    """
    indices = np.unique(np.asarray(indices, np.int64))
    runs = np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1)
    return np.array([(run[0], run[-1] + 1) for run in runs if len(run)], np.int64)


def check_slices(sources: Mapping[str, Sliced]) -> None:
    """Refuse splits that share rows of what they were cut from.

    Args:
      sources: ``{split of the run: source}``.

    Raises:
      InputError: if two share rows; names both, how many rows and the first of them.

    Example:
      >>> from types import SimpleNamespace
      >>> toy = [{"toy, train": np.array([rows])} for rows in ([0, 8], [7, 10])]
      >>> train, test = (SimpleNamespace(rows=rows) for rows in toy)
      >>> check_slices({"train": train, "test": test})  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      jft.types.InputError: the splits 'train' and 'test' share 1 rows ...
    """
    names = list(sources)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            for base in sorted({*sources[one].rows} & {*sources[other].rows}):
                shared = _intersect(sources[one].rows[base], sources[other].rows[base])
                if not len(shared):
                    continue
                count = int((shared[:, 1] - shared[:, 0]).sum())
                first = ", ".join(f"{a} to {b - 1}" for a, b in shared[:3])
                raise InputError(
                    f"the splits {one!r} and {other!r} share {count} rows of {base}: "
                    f"{first}{', …' if len(shared) > 3 else ''}. A model must be "
                    "tested on other examples; let their slices not overlap."
                )


def _intersect(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Intersect two sets of sorted, disjoint ranges."""
    first = np.searchsorted(other[:, 1], one[:, 0], side="right")
    last = np.searchsorted(other[:, 0], one[:, 1], side="left")
    shared = [
        (max(start, other[j, 0]), min(stop, other[j, 1]))
        for (start, stop), low, high in zip(one, first, last, strict=True)
        for j in range(low, high)
    ]
    return np.array(shared, np.int64).reshape(-1, 2)
