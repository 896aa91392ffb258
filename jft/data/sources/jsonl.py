# SPDX-License-Identifier: Apache-2.0
"""Objects of JSON, one a line or in one list, as rows."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jft.data.sources.blocks import TextScan
from jft.data.sources.faults import Faults
from jft.data.sources.mapped import FileSource, HeldRecords, RecordIndex
from jft.types import InputError


def load_jsonl(path: str | Path, *, on_error: str = "error") -> FileSource:
    r"""Open a file of one JSON object a line, or of one list of objects.

    The keys are the columns. A file named ``.json`` that begins with ``[`` is one
    list, and held in memory; all others are read line by line from a memory map.
    Blank lines are passed over.

    Args:
      path: the file, UTF-8; ``.gz`` is unpacked.
      on_error: ``"skip"`` leaves out the rows below that are errors.

    Raises:
      InputError: if the file is absent, no UTF-8 or without a row; for a row that is
        no JSON, no object, or has other keys than the first, a key twice, or a value
        of another type than its column has before (null is of every type, int and
        float are one); names line and column.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     file = Path(folder, "a.jsonl")
      ...     _ = file.write_text('{"text": "so good", "targets": 1}\n')
      ...     load_jsonl(file)[0]
      {'text': 'so good', 'targets': 1}
    """
    faults = Faults(on_error)
    scan = TextScan(path)
    rows = _Rows(faults)
    is_list = ".json" in scan.path.suffixes and _begins_a_list(scan.file)
    records = _read_list(scan, rows) if is_list else _read_lines(scan, rows)
    faults.check_rows(scan.path, len(records))
    return FileSource(
        records,
        dict if is_list else json.loads,
        columns=rows.columns,
        kind="JSON",
        faults=faults,
    )


def read_json(scan: TextScan, *, expected: str) -> Any:
    """Read a file that is one value of JSON, whole.

    Args:
      scan: of the file; iterated here.
      expected: what the file should hold, for the message.

    Raises:
      InputError: if it is no JSON; names the line.
    """
    text = b"".join(block.data for block in scan).decode()
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        where = f"{scan.path}, line {line}" if line else f"{scan.path}"
        raise InputError(
            f"{where} is no JSON: {_reason(error)}. Expected {expected}."
        ) from error


class _Rows:
    """Checks rows as they come, each against those before."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.columns: tuple[str, ...] = ()
        self._first = ""  # where the first row stands
        self._types: dict[str, tuple[str, str]] = {}  # of a column, and since where

    def check(self, row: Any, place: str) -> bool:
        """Whether the row fits; a fault is added where not."""
        fault = self._fault(row, place)
        if fault:
            self.faults.add(f"{place}{fault}")
            return False
        return True

    def _fault(self, row: Any, place: str) -> str | None:
        if not isinstance(row, dict):
            return f" holds {_type_name(row)}; expected an object, {{…}}, one a row."
        if not row:
            return " holds an object without keys; expected one key a column."
        if not self.columns:
            self.columns, self._first = tuple(row), place
        if row.keys() != set(self.columns):
            return self._other_keys(row)
        found = {name: _type_name(x) for name, x in row.items() if x is not None}
        for name, kind in found.items():
            known, since = self._types.get(name, (kind, place))
            if kind != known:
                return (
                    f", column {name!r} holds {kind}; since {since} it holds {known}. "
                    "Give every row the same type, or null."
                )
        for name, kind in found.items():
            self._types.setdefault(name, (kind, place))
        return _half_character(row)

    def _other_keys(self, row: Mapping[str, Any]) -> str:
        missing = sorted(set(self.columns) - set(row))
        more = sorted(set(row) - set(self.columns))
        lists = [
            f"{what} {names}"
            for what, names in (("lacks the columns", missing), ("also has", more))
            if names
        ]
        return (
            f" {' and '.join(lists)}; expected those of {self._first}, "
            f"{list(self.columns)}. Give every row every key; null is no value."
        )


def _read_lines(scan: TextScan, rows: _Rows) -> Any:
    index = RecordIndex()
    for block in scan:
        if not index.count:
            index.start = block.offset
        dropped = []
        for line, (start, end) in enumerate(block.spans(), start=block.line):
            record = block.data[start:end]
            dropped.append(
                not record.strip() or not _check_line(record, line, rows, scan.path)
            )
        index.add(block.ends + block.offset, [1] * len(dropped), dropped)
    return index.records(scan)


def _check_line(record: bytes, line: int, rows: _Rows, path: Path) -> bool:
    try:
        row = json.loads(record, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        rows.faults.add(
            f"{path}, line {line} is no JSON: {_reason(error)}. Expected one object a "
            "line or, in a file named .json, one list of objects."
        )
        return False
    return rows.check(row, f"{path}, line {line}")


def _read_list(scan: TextScan, rows: _Rows) -> HeldRecords:
    items: Iterable[Any] = read_json(scan, expected="one list of objects")
    places = [f"item {number}" for number, _ in enumerate(items, start=1)]
    kept = [
        (item, f"{scan.path.name}, {place}")
        for item, place in zip(items, places, strict=True)
        if rows.check(item, f"{scan.path}, {place}")
    ]
    return HeldRecords(
        [item for item, _ in kept],
        [place for _, place in kept],
        content=scan.content,
    )


def _begins_a_list(file: Path) -> bool:
    with file.open("rb") as stream:
        start = stream.read(4096)
    return start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"an object has the keys {twice} more than once")
    return row


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.colno}"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error)


def _type_name(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    names = {str: "a text", list: "a list", dict: "an object", type(None): "null"}
    return names[type(value)]


def _half_character(row: Mapping[str, Any]) -> str | None:
    """Half of a surrogate pair, such as a text cut in an emoji leaves: no UTF-8."""
    for name, value in row.items():
        try:
            if isinstance(value, str):
                value.encode()
        except UnicodeEncodeError as error:
            return (
                f", column {name!r} holds half a character (a lone surrogate) at "
                f"position {error.start}. Remove it."
            )
    return None
