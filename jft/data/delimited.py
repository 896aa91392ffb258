# SPDX-License-Identifier: Apache-2.0
"""Delimited text files (TSV, CSV) as rows that know their lines."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jft.types import InputError


@dataclass(frozen=True, kw_only=True)
class Table:
    """The rows of a file, all of the same number of columns."""

    path: Path
    names: tuple[str, ...] | None  # of the columns; None without a header
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]  # where each row ends in the file, counted from 1

    def column(self, column: int | str) -> tuple[str, ...]:
        """Return the values of a column, given by its position from 0 or its name.

        Raises:
          InputError: if there is no such column; lists those there are.
        """
        position = self._position(column)
        return tuple(row[position] for row in self.rows)

    def where(self, row: int, column: int | str) -> str:
        """Say where a value stands, for a message."""
        return f"{self.path}, line {self.lines[row]}, column {column!r}"

    def _position(self, column: int | str) -> int:
        width = len(self.rows[0])
        if isinstance(column, str):
            if self.names is None:
                raise InputError(
                    f"the column {column!r} is asked for by name, but {self.path} is "
                    "read without a header; set header to True, or give the column's "
                    "position, counted from 0."
                )
            if self.names.count(column) != 1:
                raise InputError(
                    f"{self.path} has the columns {list(self.names)}; expected "
                    f"{column!r} once among them. Correct the name or the header."
                )
            return self.names.index(column)
        if not 0 <= column < width:
            raise InputError(
                f"{self.path} has {width} columns, 0 to {width - 1}; there is no "
                f"column {column}. Correct the position or the delimiter."
            )
        return column


def read_table(
    path: str | Path, *, delimiter: str, quoted: bool, header: bool
) -> Table:
    r"""Read a delimited file of UTF-8 text; blank lines are passed over.

    Args:
      path: the file.
      delimiter: one character between two columns.
      quoted: whether ``"`` quotes a value that holds delimiters or line ends, as in
        RFC 4180; else quotes are like any other character.
      header: whether the first row names the columns.

    Raises:
      InputError: if the file is absent, no UTF-8, badly quoted or without a row, or
        if a row has more or fewer columns than the first; names file and line.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     file = Path(folder, "a.tsv")
      ...     _ = file.write_text("good film\t1\nbad film\t0\n", encoding="utf-8")
      ...     read_table(file, delimiter="\t", quoted=False, header=False).column(1)
      ('1', '0')
    """
    path = Path(path)
    text = _read_text(path)
    split = _quoted_rows if quoted else _plain_rows
    numbered = [(line, row) for line, row in split(text, delimiter, path) if any(row)]
    names = tuple(numbered.pop(0)[1]) if header and numbered else None
    if not numbered:
        raise InputError(
            f"{path} has no row{' below its header' if names else ''}; expected one "
            "example a row."
        )
    width = len(names or numbered[0][1])
    for line, row in numbered:
        if len(row) != width:
            raise InputError(
                f"{path}, line {line} has {len(row)} columns; the first row has "
                f"{width}. Correct the line, or the delimiter {delimiter!r}."
            )
    return Table(
        path=path,
        names=names,
        rows=tuple(tuple(row) for _, row in numbered),
        lines=tuple(line for line, _ in numbered),
    )


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        what = "is a folder" if path.is_dir() else f"cannot be read: {error.strerror}"
        raise InputError(
            f"{path.absolute()} {what}; expected a file of delimited text, one "
            "example a row. Check the path of the data."
        ) from error
    try:
        return data.decode("utf-8-sig")  # without the mark that some editors leave
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}, line {line} is no UTF-8: {error.reason} (byte "
            f"0x{data[error.start]:02x}). Save the file as UTF-8."
        ) from error


def _plain_rows(
    text: str, delimiter: str, path: Path
) -> Iterator[tuple[int, list[str]]]:
    # not splitlines(), which also splits at characters that texts may hold
    for line, row in enumerate(text.split("\n"), start=1):
        yield line, row.removesuffix("\r").split(delimiter)


def _quoted_rows(
    text: str, delimiter: str, path: Path
) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num} is badly quoted: {error}. Double each "
            'quote inside a quoted value, as in "say ""yes""".'
        ) from error
