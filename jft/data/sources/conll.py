# SPDX-License-Identifier: Apache-2.0
"""Sentences with a tag for each word, one word a line (CoNLL)."""

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jft.data.sources.blocks import TextScan
from jft.data.sources.faults import Faults
from jft.data.sources.mapped import FileSource, RecordIndex
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
    starts, lines, bad = array("q"), array("q"), array("b")
    width = 0
    for offset, number, words in _sentences(scan):
        width = width or len(words[0].split(layout.delimiter))
        fault = layout.fault(words, width)
        if fault:
            row, what = fault
            faults.add(f"{scan.path}, line {number + row} {what}")
        starts.append(offset)
        lines.append(number)
        bad.append(fault is not None)
    faults.check_rows(scan.path, len(bad) - sum(bad))
    index = RecordIndex(starts[0], line=lines[0])
    index.add(
        [*starts[1:], scan.file.stat().st_size], np.diff(lines, append=lines[-1]), bad
    )
    return FileSource(
        index.records(scan),
        layout.parse,
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

    def fault(self, words: list[bytes], width: int) -> tuple[int, str] | None:
        """Which line of a sentence is wrong, and what is, or None."""
        columns = [c for c in (self.token, self.tag) if c is not None]
        fits = all(-width <= c < width for c in columns)
        if not fits or len({c % width for c in columns}) < len(columns):
            return 0, (
                f"has {width} columns; expected columns {columns} for word and tag, "
                "two that differ. Correct token_column, tag_column (None where there "
                f"are no tags) or the delimiter {self.delimiter!r}."
            )
        for row, line in enumerate(words):
            fields = line.split(self.delimiter)
            if len(fields) != width:
                return row, (
                    f"has {len(fields)} columns; the first line has {width}. Correct "
                    f"the line, or the delimiter {self.delimiter!r}."
                )
            if not all(fields[c] for c in columns):
                return row, "has a blank word or tag. Fill it in, or remove the line."
            token = fields[self.token]
            if not token.startswith(self.prefix) or token == self.prefix:
                return row, (
                    f"has the word {token.decode()!r}; expected the prefix "
                    f"{self.prefix.decode()!r} and more. Correct it or the prefix."
                )
        return None

    def parse(self, record: bytes) -> dict[str, Any]:
        """The row of a sentence, whatever stands between it and the next."""
        fields = [
            line.rstrip(b"\r").split(self.delimiter)
            for line in record.split(b"\n")
            if line.strip() and not line.startswith(DOCUMENT)
        ]
        words = [f[self.token].removeprefix(self.prefix).decode() for f in fields]
        if self.tag is None:
            return {"words": words}
        return {"words": words, "tags": [f[self.tag].decode() for f in fields]}


def _sentences(scan: TextScan) -> Iterator[tuple[int, int, list[bytes]]]:
    """Yield where each sentence begins, byte and line, and the lines of its words."""
    words: list[bytes] = []
    begin, first = 0, 1
    for block in scan:
        for number, (start, end) in enumerate(block.spans(), start=block.line):
            line = block.data[start:end].rstrip(b"\r\n")
            if line.strip() and not line.startswith(DOCUMENT):
                if not words:
                    begin, first = block.offset + start, number
                words.append(line)
            elif words:
                yield begin, first, words
                words = []
    if words:
        yield begin, first, words
