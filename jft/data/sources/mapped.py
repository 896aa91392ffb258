# SPDX-License-Identifier: Apache-2.0
"""Rows of text files, read on demand: memory holds where they lie, not what they say.

A record is a stretch of a file: a line, a quoted row of several lines, a sentence of
one token a line. Their borders take 8 bytes a record.
"""

import mmap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from jft.data.sources.blocks import TextScan, find_file
from jft.data.sources.faults import Faults
from jft.data.sources.source import ColumnView, digest
from jft.types import InputError


@runtime_checkable
class Records(Protocol):
    """What a `FileSource` reads its rows from."""

    content: str  # a digest

    def __len__(self) -> int:
        """Count the records."""

    def __getitem__(self, index: int) -> Any:
        """Return a record as it stands in the file."""

    def place(self, index: int) -> str:
        """Say where a record stands: ``train.csv, line 17``."""


class RecordIndex:
    """Collects, in one pass over a file, where its records lie."""

    def __init__(self, start: int = 0, *, line: int = 1) -> None:
        self.start, self.line = start, line
        self._ends: list[np.ndarray] = []
        self._lines: list[np.ndarray] = []
        self._dropped: list[np.ndarray] = []
        self.count = 0

    def add(self, ends: Any, lines: Any, dropped: Any) -> None:
        """Append records.

        Args:
          ends: where each ends in the file, [R]; it begins where the last one ended.
          lines: how many line ends each holds, [R].
          dropped: whether each is to be left out, [R].
        """
        lines, dropped = np.asarray(lines), np.asarray(dropped, bool)
        self._ends.append(np.asarray(ends, np.int64))
        # most records are one line and are kept: only the others take memory
        long = np.flatnonzero(lines != 1)
        self._lines.append(np.stack([long + self.count, lines[long] - 1]))
        self._dropped.append(np.flatnonzero(dropped) + self.count)
        self.count += len(lines)

    def records(self, scan: TextScan) -> "MappedRecords":
        """Return the records of a file, after the pass over it."""
        lines = np.concatenate([np.zeros((2, 0), np.int64), *self._lines], axis=1)
        return MappedRecords(
            scan.path,
            scan.content,
            bounds=np.concatenate([[self.start], *self._ends], dtype=np.int64),
            dropped=np.concatenate([np.zeros(0, np.int64), *self._dropped]),
            long=lines[0],
            extra=np.concatenate([[0], np.cumsum(lines[1])]),
            line=self.line,
        )


class MappedRecords:
    """Bytes of a file's records by position; picklable, opens the file anew.

    Made by `RecordIndex`.

    Raises:
      InputError: when unpickled, if the file is absent or of another size.
    """

    def __init__(
        self,
        path: Path,
        content: str,
        *,
        bounds: np.ndarray,
        dropped: np.ndarray,
        long: np.ndarray,
        extra: np.ndarray,
        line: int,
    ) -> None:
        self.path, self.content = path, content
        self._bounds = bounds  # int64 [M + 1], of all records
        # dropped record d has _kept[d] kept ones before it
        self._kept = dropped - np.arange(len(dropped))
        self._long = long  # the records that are not one line
        self._extra = extra  # [K + 1]: how many lines more than one, summed
        self._line = line
        self._open()

    def __len__(self) -> int:
        return len(self._bounds) - 1 - len(self._kept)

    def __getitem__(self, index: int) -> bytes:
        at = self._position(index)
        return self._bytes[self._bounds[at] : self._bounds[at + 1]]

    def line(self, index: int) -> int:
        """Return the line that a record begins at, counted from 1."""
        at = self._position(index)
        return self._line + at + int(self._extra[self._long.searchsorted(at)])

    def place(self, index: int) -> str:
        """Say where a record stands."""
        return f"{self.path.name}, line {self.line(index)}"

    def _position(self, index: int) -> int:
        """Where the kept record stands among all."""
        length = len(self)
        if not -length <= index < length:
            raise IndexError(index)
        index = int(index) % length
        if not len(self._kept):
            return index
        return index + int(self._kept.searchsorted(index, side="right"))

    def _open(self) -> None:
        file = find_file(self.path)
        self._size = file.stat().st_size
        with file.open("rb") as stream:
            self._bytes = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)

    def __getstate__(self) -> dict[str, Any]:
        return {name: x for name, x in vars(self).items() if name != "_bytes"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()
        if self._size != state["_size"]:
            raise InputError(
                f"{self.path.absolute()} has {self._size:,} bytes; it had "
                f"{state['_size']:,} when the run began. Leave files of the data as "
                "they are while they are read."
            )


class HeldRecords:
    """Records held in memory, for files that are one value of JSON.

    Args:
      records: what the file holds.
      places: where each stands.
      content: a digest of the file.
    """

    def __init__(
        self, records: Sequence[Any], places: Sequence[str], *, content: str
    ) -> None:
        self._records, self._places, self.content = records, places, content

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Any:
        return self._records[index]

    def place(self, index: int) -> str:
        """Say where a record stands."""
        return self._places[index]


class FileSource:
    """The rows of a file: a `Source` that parses each record when it is asked for.

    Args:
      records: of the file.
      parse: ``record -> row``, picklable.
      columns: of every row.
      kind: of the file, for ``repr``.
      settings: what rows depend on besides the file's content.
      faults: of the pass over the file.

    Attributes:
      skipped: what rows that were left out lack, the first hundred.
      num_skipped: how many were left out.
    """

    def __init__(
        self,
        records: Records,
        parse: Callable[[Any], dict[str, Any]],
        *,
        columns: Sequence[str],
        kind: str,
        settings: Sequence[Any] = (),
        faults: Faults,
    ) -> None:
        self.columns = tuple(columns)
        self.skipped = tuple(faults.messages)
        self.num_skipped = faults.count
        self._records, self._parse, self._kind = records, parse, kind
        self._digest = digest([records.content, repr(tuple(settings))])

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._parse(self._records[index])

    def column(self, name: str) -> Sequence[Any]:
        """Return a view of a column, read row by row."""
        return ColumnView(self, name)

    def where(self, index: int, column: str) -> str:
        """Say where a value stands, by the line that its row begins at."""
        return f"{self._records.place(index)}, column {column!r}"

    def __repr__(self) -> str:
        columns = list(self.columns)
        return f"{self._kind}({len(self)} rows, {columns}, {self._digest})"


def record_text(record: bytes) -> str:
    r"""Decode a record without its line end.

    >>> record_text(b"so good\t1\r\n")
    'so good\t1'
    """
    return record.decode().removesuffix("\n").removesuffix("\r")
