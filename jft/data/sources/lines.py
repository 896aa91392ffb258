# SPDX-License-Identifier: Apache-2.0
"""Texts of one line each, in one file or side by side in several."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jft.data.sources.blocks import TextScan
from jft.data.sources.mapped import MappedRecords, RecordIndex, record_text
from jft.data.sources.source import ColumnView, digest
from jft.types import InputError


class LinesSource:
    """A text a line; with several files, a row is the same line of each.

    Args:
      path: the file; with ``files``, the folder that they lie in, or what their paths
        begin with. ``.gz`` is unpacked.
      files: ``{column: name}``, appended to ``path``; None is ``path`` alone, as the
        column ``text``.

    Blank lines are passed over in one file; in several they count, for the next lines
    belong together.

    Raises:
      InputError: if a file is absent, no UTF-8 or without a line, or if the files have
        other numbers of lines.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     for end, text in (("en", "a man"), ("de", "ein Mann")):
      ...         _ = Path(folder, f"train.{end}").write_text(text, encoding="utf-8")
      ...     files = {"text": ".en", "target_text": ".de"}
      ...     LinesSource(f"{folder}/train", files=files)[0]
      {'text': 'a man', 'target_text': 'ein Mann'}
    """

    def __init__(
        self, path: str | Path, *, files: Mapping[str, str] | None = None
    ) -> None:
        if files is not None and not files:
            raise InputError(
                'the option files is empty; expected {column: name}, such as {"text": '
                '"train.en", "target_text": "train.de"}, or None for one file.'
            )
        paths = {"text": Path(path)} if files is None else _below(path, files)
        self.columns = tuple(paths)
        self._records = {
            column: _read_lines(file, keep_blank=len(paths) > 1)
            for column, file in paths.items()
        }
        self._length = _common_length(self._records)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            column: record_text(records[index])
            for column, records in self._records.items()
        }

    def column(self, name: str) -> Sequence[Any]:
        """Return a view of a column, read line by line."""
        return ColumnView(self, name)

    def where(self, index: int, column: str) -> str:
        """Say which line of which file a value is."""
        return f"{self._records[column].place(index)}, column {column!r}"

    def __repr__(self) -> str:
        content = digest(records.content for records in self._records.values())
        return f"LinesSource({len(self)} rows, {list(self.columns)}, {content})"


def _below(path: str | Path, files: Mapping[str, str]) -> dict[str, Path]:
    if Path(path).is_dir():
        return {column: Path(path, name) for column, name in files.items()}
    return {column: Path(f"{path}{name}") for column, name in files.items()}


def _read_lines(path: Path, *, keep_blank: bool) -> MappedRecords:
    scan = TextScan(path)
    index = RecordIndex()
    for block in scan:
        if not index.count:
            index.start = block.offset
        one = np.ones(len(block.ends), np.int64)
        blank = [not block.data[start:end].strip() for start, end in block.spans()]
        dropped = np.zeros(len(one), bool) if keep_blank else blank
        index.add(block.ends + block.offset, one, dropped)
    records = index.records(scan)
    if not len(records):
        raise InputError(f"{path} has no text; expected one a line.")
    return records


def _common_length(files: Mapping[str, MappedRecords]) -> int:
    counts = {str(records.path): len(records) for records in files.values()}
    if len(set(counts.values())) > 1:
        lines = ", ".join(f"{name} has {count:,}" for name, count in counts.items())
        raise InputError(
            f"the files do not have the same number of lines: {lines}. Line by line "
            "they must belong together: find where one has a line too many."
        )
    return next(iter(counts.values()))
