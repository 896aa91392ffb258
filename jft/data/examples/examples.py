# SPDX-License-Identifier: Apache-2.0
"""Examples: rows that were checked, with their targets as numbers.

Every row is read once when the examples are made, so that what is wrong with the data
is said before a model is loaded. Targets are kept; texts and images are read again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from jft.data.examples.bad_rows import BadRows
from jft.data.examples.class_ids import HEADER, choose_classes, encode_classes
from jft.data.examples.classes import given_classes
from jft.data.examples.encoding import Encoded, Ragged
from jft.data.examples.kinds import KINDS, Column, read_classes
from jft.data.examples.splits import Subset
from jft.data.examples.values import BadValueError, is_missing, plain
from jft.data.sources.source import Source, digest
from jft.types import InputError


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Examples:
    """Checked rows, made by `make_examples`; a `Source` of the fields.

    ``examples[i]`` is ``{field: value, "id": str}``: texts as str, targets encoded,
    and by ``id`` a person finds the row: the value of the column ``id`` where the
    source has one, else where the target, or the first field, stands. Equal examples
    have an equal ``repr``.
    """

    source: Source  # the rows that were kept
    fields: tuple[Column, ...]  # that the source has
    class_names: tuple[str, ...]  # by class id; () where the task has no classes
    encoded: Mapping[str, Encoded]  # by field
    skipped: tuple[str, ...] = ()  # one message a row that was left out

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.source[index]
        example = {
            column.name: (
                self.encoded[column.name][index]
                if column.name in self.encoded
                else KINDS[column.kind].read(row[column.name])
            )
            for column in self.fields
        }
        named = plain(row.get("id"))
        return {
            **example,
            "id": self._place(index) if is_missing(named) else str(named),
        }

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the fields."""
        return tuple(column.name for column in self.fields)

    @property
    def targets(self) -> np.ndarray | None:
        """All targets where they have one shape: int32 [N], float32 [N] or [N, C]."""
        names = [column.name for column in self.fields if column.is_target]
        targets = self.encoded.get(names[0]) if names else None
        return targets if isinstance(targets, np.ndarray) else None

    def column(self, name: str) -> Sequence[Any]:
        """Return a field's value of every example; of images, the file names."""
        if name in self.encoded:
            return [self.encoded[name][index] for index in range(len(self))]
        kind = {column.name: column.kind for column in self.fields}[name]
        return [KINDS[kind].read(value) for value in self.source.column(name)]

    def where(self, index: int, column: str) -> str:
        """Say where a value stands in the user's files."""
        return self.source.where(index, column)

    def _place(self, index: int) -> str:
        column = next((c for c in self.fields if c.is_target), self.fields[0])
        return self.where(index, column.name)

    @cached_property
    def _digest(self) -> str:
        parts: list[str | np.ndarray] = [str(self.class_names)]
        for name, values in self.encoded.items():
            if isinstance(values, Ragged):
                parts += [name, values.values, values.offsets]
            else:
                parts += [name, str(values.shape), values]
        return digest(parts)

    def __repr__(self) -> str:
        fields = {column.name: column.kind for column in self.fields}
        return f"Examples({self.source!r}, {fields}, {self._digest})"


def make_examples(
    source: Source,
    columns: Sequence[Column],
    *,
    class_names: Sequence[str] | None = None,
    on_error: str = "error",
    separator: str = ",",
    need_targets: bool = True,
) -> Examples:
    """Check all rows of a source and encode their targets.

    Classes are found in the labels, sorted, as numbers where all are whole numbers;
    tags with ``O`` first and of each entity B before I; those of several 0/1 columns
    are the columns, in their order. Where ``class_names`` are given and no label is
    one of them, whole numbers are ids.

    Args:
      source: the rows, its columns named as the fields.
      columns: that the task reads.
      class_names: of the classes, in the order of their ids; None finds them. Give
        those of the training split for every other one.
      on_error: at a row that cannot be used, ``"error"``, or ``"skip"`` to leave it
        out and keep a message in ``skipped``.
      separator: between the classes of a row, where they are one text.
      need_targets: False to predict: targets may be absent, and a conversation may
        wait for its answer.

    Returns:
      `Examples` of the rows in their order.

    Raises:
      InputError: for a row that cannot be used, by its place; with ``"skip"``, where
        those are more than half of all; for an absent column, and for fewer than two
        classes.

    Example:
      >>> from jft.data.sources.source import ArraySource
      >>> source = ArraySource({"text": ["good", "bad"], "targets": ["yes", "no"]})
      >>> columns = Column("text", "text"), Column("targets", "class")
      >>> examples = make_examples(source, columns)
      >>> examples.class_names, examples.targets
      (('no', 'yes'), array([1, 0], dtype=int32))
    """
    fields = _present(source, columns, need_targets=need_targets)
    bad = BadRows(source, on_error)
    values = {
        column.name: _read(
            source, column, bad, separator=separator, need_targets=need_targets
        )
        for column in fields
    }
    bad.settle()
    names = _given_names(columns, class_names)
    for column in fields:
        if KINDS[column.kind].order is not None:
            labels = values[column.name]
            classes = choose_classes(column, labels, class_names, bad)
            values[column.name] = encode_classes(column, labels, classes, bad)
            names = classes.names
    bad.settle()
    kept = bad.kept()
    encoded = {
        column.name: encode([values[column.name][row] for row in kept], len(names))
        for column in fields
        if (encode := KINDS[column.kind].encode) is not None
    }
    return Examples(
        source=source if len(kept) == len(source) else Subset(source, kept),
        fields=fields,
        class_names=names,
        encoded=encoded,
        skipped=bad.messages(),
    )


def _present(
    source: Source, columns: Sequence[Column], *, need_targets: bool
) -> tuple[Column, ...]:
    """The columns that the source has; an error where one is needed."""
    if not len(source):
        raise InputError(f"{source!r} has no row to make an example of.")
    present = [column for column in columns if column.name in source.columns]
    absent = [
        column.name
        for column in columns
        if column not in present
        and not column.optional
        and (need_targets or not column.is_target)
    ]
    if absent or not present:
        raise InputError(
            f"the task reads the fields {[column.name for column in columns]}, but the "
            f"data has the columns {list(source.columns)}; {absent} are absent. Say "
            'which columns they are: columns = {"field": "column"}.'
        )
    return tuple(present)


def _read(
    source: Source,
    column: Column,
    bad: BadRows,
    *,
    separator: str,
    need_targets: bool,
) -> list[Any]:
    """Check a column's values; return those that will be encoded, None where bad."""
    kind, name = KINDS[column.kind], column.name
    separated = partial(read_classes, separator=separator)
    read = separated if column.kind == "classes" else kind.read
    raw = source.column(name)
    beside = None if kind.beside is None else source.column(kind.beside)
    first_type, values = None, []
    for row, value in enumerate(raw):
        result = None
        try:
            result = read(value)
            if kind.check is not None and beside is not None:
                kind.check(result, beside[row])
            if kind.check_target is not None and need_targets:
                kind.check_target(result)
            if kind.one_type:
                first_type = first_type or _type_of(value)
                _check_type(value, first_type)
        except BadValueError as error:
            named = row == 0 and column.kind == "number" and isinstance(value, str)
            bad.add(row, name, f"{error} {HEADER}" if named else error)
        if kind.encode is not None:
            values.append(result)
    return values


def _type_of(value: Any) -> str:
    if isinstance(value, str | bytes):
        return "a text"
    number = isinstance(value, int | float | np.number | np.bool_)
    return "a number" if number else type(value).__name__


def _check_type(value: Any, expected: str) -> None:
    if (found := _type_of(value)) != expected:
        raise BadValueError(
            f"is {found}, {plain(value)!r}, while the first row has {expected}. Write "
            "all rows one way."
        )


def _given_names(
    columns: Sequence[Column], class_names: Sequence[str] | None
) -> tuple[str, ...]:
    if class_names is None:
        return ()
    if all(KINDS[column.kind].order is None for column in columns):
        raise InputError(
            f"class_names are given, {list(class_names)}, but none of the task's "
            f"columns holds classes: {[(c.name, c.kind) for c in columns]}. Leave "
            "class_names out."
        )
    return given_classes(class_names, ()).names
