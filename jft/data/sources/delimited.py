# SPDX-License-Identifier: Apache-2.0
"""Delimited text files (TSV, CSV) as rows of strings."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from jft.data.sources.blocks import NEWLINE, QUOTE, Block, TextScan
from jft.data.sources.faults import Faults
from jft.data.sources.mapped import FileSource, RecordIndex, record_text
from jft.types import InputError

RETURN = ord("\r")


def load_delimited(
    path: str | Path,
    *,
    delimiter: str,
    quoted: bool,
    header: bool,
    on_error: str = "error",
) -> FileSource:
    r"""Open a delimited file of UTF-8 text; blank lines are passed over.

    Args:
      path: the file; ``.gz`` is unpacked.
      delimiter: one ASCII character between two columns.
      quoted: whether ``"`` quotes a value that holds delimiters or line ends, as in
        RFC 4180; else quotes are like any other character.
      header: whether the first row names the columns; else, and where a name is
        blank, columns have their position from 0 as name.
      on_error: ``"skip"`` leaves rows out that have more or fewer columns than the
        first; ``"error"`` refuses the file.

    Returns:
      A source whose values are all strings.

    Raises:
      InputError: if the file is absent, no UTF-8, badly quoted or without a row, if a
        column's name is there twice, or for a row of other columns; names the line.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     file = Path(folder, "a.tsv")
      ...     _ = file.write_text("good film\t1\nbad film\t0\n", encoding="utf-8")
      ...     load_delimited(file, delimiter="\t", quoted=False, header=False)[1]
      {'0': 'bad film', '1': '0'}
    """
    _check_delimiter(delimiter)
    faults = Faults(on_error)
    scan = TextScan(path, quoted=quoted)
    index = RecordIndex()
    first: list[str] = []  # the values of the first row
    for block in scan:
        if not index.count:
            index.start = block.offset
        blank, widths = _measure(block, delimiter, scan if quoted else None)
        dropped = blank.copy()
        rows = np.flatnonzero(~blank)
        if not first and len(rows):
            start, end = _span(block, int(rows[0]))
            first = _split(block.data[start:end], delimiter, quoted)
            dropped[rows[0]] = header
        for row in rows[widths[rows] != len(first)].tolist():
            start = _span(block, row)[0]
            faults.add(
                f"{scan.path}, line {block.line_at(start)} has {widths[row]} columns; "
                f"the first row has {len(first)}. Correct the line, or the delimiter "
                f"{delimiter!r}."
            )
            dropped[row] = True
        index.add(block.ends + block.offset, _line_counts(block), dropped)
    records = index.records(scan)
    faults.check_rows(
        scan.path, len(records), below=" below its header" if header and first else ""
    )
    columns = _names(scan.path, first) if header else tuple(map(str, range(len(first))))
    return FileSource(
        records,
        partial(_parse, columns=columns, delimiter=delimiter, quoted=quoted),
        columns=columns,
        kind="Delimited",
        settings=(delimiter, quoted, header),
        faults=faults,
    )


def _check_delimiter(delimiter: str) -> None:
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n':
        raise InputError(
            "the delimiter of a file is one ASCII character and no quote or line end; "
            f"got {delimiter!r}."
        )


def _span(block: Block, row: int) -> tuple[int, int]:
    return int(block.ends[row - 1]) if row else 0, int(block.ends[row])


def _measure(
    block: Block, delimiter: str, quoted: TextScan | None
) -> tuple[np.ndarray, np.ndarray]:
    """Which records are blank lines, and how many columns each has."""
    data = np.frombuffer(block.data, np.uint8)
    starts = np.concatenate([[0], block.ends[:-1]])
    stops = block.ends - (data[block.ends - 1] == NEWLINE)
    stops = stops - ((stops > starts) & (data[stops - 1] == RETURN))
    between = np.flatnonzero(data == ord(delimiter))
    if quoted is not None:
        quotes = np.flatnonzero(data == QUOTE)
        _check_quotes(quoted.path, block, data, quotes, delimiter)
        between = between[np.searchsorted(quotes, between) % 2 == 0]
    before = np.searchsorted(between, block.ends)
    return stops == starts, np.diff(before, prepend=0) + 1


def _line_counts(block: Block) -> np.ndarray:
    data = np.frombuffer(block.data, np.uint8)
    before = np.searchsorted(np.flatnonzero(data == NEWLINE), block.ends)
    return np.diff(before, prepend=0)


def _check_quotes(
    path: Path, block: Block, data: np.ndarray, quotes: np.ndarray, delimiter: str
) -> None:
    """Every other quote opens a value, or is the second of two that stand for one."""
    opening, closing = quotes[::2], quotes[1::2]
    before = np.where(opening, data[opening - 1], NEWLINE)
    after = np.append(data, NEWLINE)[closing + 1]
    inside = opening[~np.isin(before, [ord(delimiter), NEWLINE, QUOTE])]
    broken = opening[: len(closing)][
        ~np.isin(after, [ord(delimiter), NEWLINE, RETURN, QUOTE])
    ]
    left_open = opening[len(closing) :]
    faults = [
        (int(places[0]), what)
        for places, what in (
            (inside, "a quote stands inside a value that has none around it"),
            (broken, "the quoted value that begins there goes on after its last quote"),
            (left_open, "the quote that it opens is never closed"),
        )
        if len(places)
    ]
    if faults:
        at, what = min(faults)
        raise InputError(
            f"{path}, line {block.line_at(at)} is badly quoted: {what}. Double each "
            'quote inside a quoted value, as in "say ""yes"""; or set quoted to False '
            "where quotes are like any other character."
        )


def _split(record: bytes, delimiter: str, quoted: bool) -> list[str]:
    """The values of a record whose quotes are in order."""
    text = record_text(record)
    parts = text.split(delimiter)
    if not quoted or '"' not in text:
        return parts
    values: list[str] = []
    held: list[str] = []
    is_open = False
    for part in parts:
        held.append(part)
        is_open ^= part.count('"') % 2 == 1
        if not is_open:
            value = delimiter.join(held)
            if value.startswith('"'):
                value = value[1:-1].replace('""', '"')
            values.append(value)
            held = []
    return values


def _parse(
    record: bytes, *, columns: Sequence[str], delimiter: str, quoted: bool
) -> dict[str, str]:
    return dict(zip(columns, _split(record, delimiter, quoted), strict=True))


def _names(path: Path, header: Sequence[str]) -> tuple[str, ...]:
    """The columns' names; Pandas' index and superfluous delimiters have none."""
    names = tuple(name or str(i) for i, name in enumerate(header))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"{path} names the columns {twice} more than once: {list(names)}. Rename "
            "them, or set header to False and give positions."
        )
    return names
