# SPDX-License-Identifier: Apache-2.0
"""A column that is read many rows at a time and never held whole."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

CHUNK = 1024  # rows that are read at once


class ChunkedColumn(Sequence[Any]):
    """One value a row, read when asked for; iteration reads in chunks.

    Args:
      length: the number of rows.
      read: ``range of rows -> their values``.

    Example:
      >>> column = ChunkedColumn(3, lambda rows: [row * row for row in rows])
      >>> list(column), column[-1], column[:2]
      ([0, 1, 4], 4, [0, 1])
    """

    def __init__(self, length: int, read: Callable[[range], list[Any]]) -> None:
        self._rows = range(length)
        self._read = read

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        rows = self._rows[index]  # of a slice, or IndexError
        return self._read(rows) if isinstance(rows, range) else self._one(rows)

    def _one(self, row: int) -> Any:
        return self._read(range(row, row + 1))[0]

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self), CHUNK):
            yield from self._read(self._rows[start : start + CHUNK])
