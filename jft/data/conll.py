# SPDX-License-Identifier: Apache-2.0
"""Sentences with a tag for each word, one word a line (CoNLL)."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from jft.data.blocks import TextScan
from jft.data.faults import Faults
from jft.data.mapped import FileSource, RecordIndex
from jft.types import InputError

DOCUMENT = b"-DOCSTART-"


def load_conll(
    path: str | Path,
    *,
    token_column: int = 0,
    tag_column: int | None = -1,
    delimiter: str | None = None,
    prefix: str = "",
    on_error: str = "error",
) -> FileSource:
    r"""Open a file of one word a line and a blank line after each sentence.

    Lines that begin with ``-DOCSTART-`` are passed over.

    Args:
      path: the file, UTF-8; ``.gz`` is unpacked.
      token_column: position of the word in its line, from 0; negative from the end.
      tag_column: likewise of the tag; None where there are no tags.
      delimiter: between two columns; None is any run of spaces and tabs.
      prefix: what every word begins with and is to lose, such as WikiANN's ``en:``.
      on_error: ``"skip"`` leaves out the sentences in which a line is an error.

    Returns:
      A source of the columns ``words`` and, where there are tags, ``tags``, two lists
      of str of one length; a row is where its sentence begins.

    Raises:
      InputError: if the file is absent, no UTF-8 or without a sentence, or if a line
        has another number of columns than the first, no word, or lacks the prefix;
        names the line.

    Source: E. Tjong Kim Sang, F. De Meulder, "Introduction to the CoNLL-2003 shared
    task", 2003.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     file = Path(folder, "a.txt")
      ...     _ = file.write_text("In O\nUlm B-LOC\n\nYes O\n", encoding="utf-8")
      ...     load_conll(file)[0]
      {'words': ['In', 'Ulm'], 'tags': ['O', 'B-LOC']}
    """
    if delimiter == "":
        raise InputError(
            'the delimiter of a CoNLL file is a text such as "\\t", or None for any '
            "spaces and tabs; got ''."
        )
    layout = _Layout(
        token_column,
        tag_column,
        None if delimiter is None else delimiter.encode(),
        prefix.encode(),
    )
    faults = Faults(on_error)
    scan = TextScan(path)
    index = RecordIndex()
    sentences = _Sentences()
    width = 0
    for block in scan:
        for number, (start, end) in enumerate(block.spans(), start=block.line):
            fields = layout.fields(block.data[start:end])
            if fields is None:
                sentences.is_open = False
                continue
            width = width or len(fields)
            sentences.add(block.offset + start, number)
            if not sentences.is_bad and (fault := layout.fault(fields, width)):
                faults.add(f"{scan.path}, line {number} {fault}")
                sentences.is_bad = True
        sentences.flush(index)
    sentences.close(scan.file.stat().st_size)
    sentences.flush(index)
    records = index.records(scan)
    faults.check_rows(scan.path, len(records))
    return FileSource(
        records,
        partial(_parse, layout=layout),
        columns=("words",) if tag_column is None else ("words", "tags"),
        kind="CoNLL",
        settings=layout,
        faults=faults,
    )


class _Layout(NamedTuple):
    """How a line is read."""

    token: int
    tag: int | None
    delimiter: bytes | None
    prefix: bytes

    def fields(self, line: bytes) -> list[bytes] | None:
        """The columns of a line; None between sentences."""
        line = line.rstrip(b"\r\n")
        if not line.strip() or line.startswith(DOCUMENT):
            return None
        return line.split(self.delimiter)

    def fault(self, fields: list[bytes], width: int) -> str | None:
        """What is wrong with a line, or None."""
        columns = [c for c in (self.token, self.tag) if c is not None]
        if not all(-width <= c < width for c in columns) or (
            len({c % width for c in columns}) < len(columns)
        ):
            return (
                f"has {len(fields)} columns; expected columns {columns} for word and "
                "tag, two that differ. Correct token_column, tag_column (None where "
                f"there are no tags) or the delimiter {self.delimiter!r}."
            )
        if len(fields) != width:
            return (
                f"has {len(fields)} columns; the first line has {width}. Correct the "
                f"line, or the delimiter {self.delimiter!r}."
            )
        if not all(fields[c] for c in columns):
            return "has a blank word or tag. Fill it in, or remove the line."
        token = fields[self.token]
        if not token.startswith(self.prefix) or token == self.prefix:
            return (
                f"has the word {token.decode()!r}, which does not begin with the "
                f"prefix {self.prefix.decode()!r} and go on. Correct it or the prefix."
            )
        return None


class _Sentences:
    """Where sentences begin, as lines come by."""

    def __init__(self) -> None:
        self.is_open = False  # whether the next line goes on with a sentence
        self.is_bad = False  # whether a line of the sentence is an error
        self._start: tuple[int, int] | None = None  # offset and line of the last one
        self._first: tuple[int, int] | None = None
        self._done: list[tuple[int, int, bool]] = []  # end, lines, bad

    def add(self, offset: int, line: int) -> None:
        """Take a line of a word."""
        if not self.is_open:
            self._end(offset, line)
            self._start = (offset, line)
            self._first = self._first or self._start
            self.is_open, self.is_bad = True, False

    def close(self, size: int) -> None:
        """End the last sentence at the end of the file."""
        self._end(size, 0)

    def flush(self, index: RecordIndex) -> None:
        """Hand the sentences that have ended to the index."""
        if self._first and not index.count:
            index.start, index.line = self._first
        if self._done:
            index.add(*zip(*self._done, strict=True))
            self._done = []

    def _end(self, offset: int, line: int) -> None:
        if self._start:
            self._done.append((offset, line - self._start[1], self.is_bad))


def _parse(record: bytes, *, layout: _Layout) -> dict[str, Any]:
    lines = [layout.fields(line) for line in record.split(b"\n")]
    kept = [fields for fields in lines if fields is not None]
    words = [f[layout.token].removeprefix(layout.prefix).decode() for f in kept]
    if layout.tag is None:
        return {"words": words}
    return {"words": words, "tags": [f[layout.tag].decode() for f in kept]}
