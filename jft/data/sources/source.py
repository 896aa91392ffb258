# SPDX-License-Identifier: Apache-2.0
"""Raw rows by position and column: what there is before anything is checked."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np

from jft.types import InputError

Example = Mapping[str, Any]  # field name -> value of one example
Selected = str | tuple[str, ...]  # the column of a field, or several


@runtime_checkable
class Source(Protocol):
    """Rows by position; picklable, and equal sources have an equal ``repr``.

    ``repr`` digests the content and never says where it lies, so that what is kept
    for a data set is found again on another machine.
    """

    columns: tuple[str, ...]

    def __len__(self) -> int:
        """Count the rows."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return every column of a row: str, int, float, list, uint8 [h, w, c]."""

    def column(self, name: str) -> Sequence[Any]:
        """Return one column's value of every row; of images, the file names."""

    def where(self, index: int, column: str) -> str:
        """Say where a value stands: ``train.csv, line 17, column 'label'``."""


class ArraySource:
    """Rows held in memory.

    Args:
      columns: ``{name: values}``, arrays whose first axis counts the rows, or lists.

    Raises:
      InputError: if there is no column or no row, or if columns differ in length.

    Example:
      >>> source = ArraySource({"text": ["good", "bad"], "targets": np.array([1, 0])})
      >>> source[1]
      {'text': 'bad', 'targets': 0}
      >>> source.where(1, "text")
      "row 1, column 'text'"
    """

    def __init__(self, columns: Mapping[str, Any]) -> None:
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) != 1:
            raise InputError(
                "an ArraySource needs at least one column, and columns of one length; "
                f"got lengths {lengths}. Give every row every column."
            )
        self.columns = tuple(columns)
        self._values = dict(columns)
        self._length = lengths[self.columns[0]]
        if not self._length:
            raise InputError(
                "an ArraySource needs at least one row; got none in the columns "
                f"{list(self.columns)}."
            )

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: _plain(values[index]) for name, values in self._values.items()}

    def column(self, name: str) -> Sequence[Any]:
        """Return the values of a column, numbers as Python's."""
        return [_plain(value) for value in self._values[name]]

    def where(self, index: int, column: str) -> str:
        """Say where a value stands; rows are counted from 0."""
        return f"row {index}, column {column!r}"

    @cached_property
    def _digest(self) -> str:
        return digest(
            part
            for name, values in self._values.items()
            for part in (name, *_parts(values))
        )

    def __repr__(self) -> str:
        return f"ArraySource({len(self)} rows, {list(self.columns)}, {self._digest})"


class SelectedColumns:
    """The columns of a source under the names of fields; see `select_columns`."""

    def __init__(self, source: Source, selected: Mapping[str, Selected]) -> None:
        self.source = source
        self.selected = dict(selected)
        self.columns = tuple(selected)
        self.skipped: tuple[str, ...] = getattr(source, "skipped", ())
        self.num_skipped: int = getattr(source, "num_skipped", 0)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.source[index]
        return {
            field: row[names] if isinstance(names, str) else {n: row[n] for n in names}
            for field, names in self.selected.items()
        }

    def column(self, name: str) -> Sequence[Any]:
        """Return the values of the column, or columns, that a field is read from."""
        names = self.selected[name]
        if isinstance(names, str):
            return self.source.column(names)
        columns = {column: self.source.column(column) for column in names}
        if all(isinstance(values, ColumnView) for values in columns.values()):
            return ColumnView(self, name)  # which reads each row once for all of them
        return _Together(columns)

    def where(self, index: int, column: str) -> str:
        """Say where the value of a field stands, by the name in the file."""
        names = self.selected[column]
        if isinstance(names, str):
            return self.source.where(index, names)
        others = f" and {len(names) - 1} more" if names[1:] else ""
        return self.source.where(index, names[0]) + others

    def __repr__(self) -> str:
        return f"SelectedColumns({self.source!r}, {self.selected})"


def select_columns(
    source: Source, columns: Mapping[str, int | str | Sequence[int | str]]
) -> SelectedColumns:
    """Name the fields of rows by columns of a source; leaves all others out.

    Args:
      source: of the rows.
      columns: ``{field: column}``; a column without a name by its position from 0. Of
        several, in a list, the field is ``{column: value}``: such as a 0 or 1 for
        each class.

    Raises:
      InputError: if there is no such column; lists those there are. For a list that
        is empty or has a column twice.

    Example:
      >>> source = ArraySource({"sentence": ["so good"], "long": ["0"], "kind": ["1"]})
      >>> select_columns(source, {"text": "sentence", "targets": ["long", "kind"]})[0]
      {'text': 'so good', 'targets': {'long': '0', 'kind': '1'}}
    """
    selected = {
        field: str(column)
        if isinstance(column, int | str)
        else _several(field, [str(name) for name in column])
        for field, column in columns.items()
    }
    for field, names in selected.items():
        for column in (names,) if isinstance(names, str) else names:
            if column not in source.columns:
                raise InputError(
                    f"the field {field!r} is to be read from the column {column!r}; "
                    f"the data has the columns {list(source.columns)}."
                    f"{_column_hint(source, column)}"
                )
    return SelectedColumns(source, selected)


def _several(field: str, names: Sequence[str]) -> tuple[str, ...]:
    if not names or len(set(names)) < len(names):
        raise InputError(
            f"the field {field!r} is to be read from the columns {list(names)}; name "
            "at least one, and each once."
        )
    return tuple(names)


class _Together(Sequence[Any]):
    """Several columns of a source as one, of a dict a row."""

    def __init__(self, columns: Mapping[str, Sequence[Any]]) -> None:
        self._columns = dict(columns)

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return {name: values[index] for name, values in self._columns.items()}

    def __iter__(self) -> Iterator[Any]:
        rows = zip(*self._columns.values(), strict=True)
        return (dict(zip(self._columns, row, strict=True)) for row in rows)


class ColumnView(Sequence[Any]):
    """One column of a source, read row by row; nothing of it is held in memory."""

    def __init__(self, source: Source, name: str) -> None:
        if name not in source.columns:
            raise KeyError(name)
        self._source = source
        self._name = name

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._source[index][self._name]

    def __iter__(self) -> Iterator[Any]:
        return (self._source[index][self._name] for index in range(len(self)))


def digest(parts: Iterable[str | np.ndarray]) -> str:
    """Hash strings and arrays, in order, to 16 hexadecimal digits."""
    state = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, str):
            state.update(part.encode() + b"\0")
        else:
            state.update(np.ascontiguousarray(part).tobytes())
    return state.hexdigest()


def _plain(value: Any) -> Any:
    """Numbers of numpy as Python's; arrays stay."""
    return value.item() if isinstance(value, np.generic) else value


def _parts(values: Any) -> Iterable[str | np.ndarray]:
    """What tells a column's values apart, for `digest`."""
    if isinstance(values, np.ndarray) and values.dtype != object:
        yield from (str(values.dtype), str(values.shape), values)
        return
    for value in values:
        if isinstance(value, np.ndarray):
            yield from _parts(value)
        else:
            yield repr(_plain(value))


def _column_hint(source: Source, column: str) -> str:
    """What else may be wrong where a column is absent: the delimiter or the header."""
    first = source[0]
    names = source.columns
    held = [name if name != "0" else str(first[name]) for name in names]
    for delimiter in ",;\t|":
        if len(names) == 1 and delimiter in held[0]:
            parts = [part.strip('" ') for part in held[0].split(delimiter)]
            if column in parts or (column.isdecimal() and int(column) < len(parts)):
                return (
                    f" There is one column only, and {held[0]!r} holds {delimiter!r}: "
                    f"set delimiter to {delimiter!r}."
                )
    if column in [str(value) for value in first.values()]:
        return f" The first row holds {column!r}: set header to True."
    if names == tuple(map(str, range(len(names)))):
        return " They were read without a header; set header to True if there is one."
    return ""
