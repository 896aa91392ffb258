# SPDX-License-Identifier: Apache-2.0
"""From the labels of all rows to the classes of a data set and the ids of each row."""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from jft.data.examples.bad_rows import BadRows
from jft.data.examples.classes import Classes, found_classes, given_classes, is_header
from jft.data.examples.kinds import KINDS, Column
from jft.data.examples.values import BadValueError, plain
from jft.types import InputError

HEADER = "If it is the name of the column, set header to True."


def choose_classes(
    column: Column,
    values: Sequence[Any],
    class_names: Sequence[str] | None,
    bad: BadRows,
) -> Classes:
    """Return the classes that are given, or those of the rows without a fault.

    Args:
      column: of a kind with classes.
      values: a label, several, or ``{label: bool}`` a row, as the kind reads them.
      class_names: in the order of their ids; None finds them.
      bad: of the rows so far; labels that are none are added.

    Raises:
      InputError: for fewer than two classes; and as `BadRows.settle`.
    """
    if class_names is None and column.kind == "class":
        _refuse_found(column, values, bad)
        bad.settle()
    rows = [value for row, value in enumerate(values) if row not in bad.rows]
    labels = dict.fromkeys(chain.from_iterable(map(_labels, rows)))
    if class_names is not None:
        return given_classes(class_names, labels)
    order = KINDS[column.kind].order
    assert order is not None
    # columns of 0 and 1 have an order of their own
    names = tuple(labels) if isinstance(rows[0], dict) else order(labels)
    if len(names) < 2:
        where = bad.source.where(int(bad.kept()[0]), column.name)
        found = f"only the class {names[0]!r}" if names else "no class"
        raise InputError(
            f"{where} and all other rows have {found}; expected at least two classes. "
            "Check the column, or name the classes in class_names."
        )
    return found_classes(names)


def encode_classes(
    column: Column, values: Sequence[Any], classes: Classes, bad: BadRows
) -> list[Any]:
    """Return the class id, or ids, of each row; None where it cannot be used.

    Args:
      column: of a kind with classes.
      values: as in `choose_classes`.
      classes: by label.
      bad: of the rows so far; rows with an unknown label are added.
    """
    ids: list[Any] = [None] * len(values)
    for row, value in enumerate(values):
        if row in bad.rows:
            continue
        try:
            ids[row] = _row_ids(value, classes)
        except BadValueError as error:
            what = str(error)
            if column.kind == "tags":
                what = _unknown_tag(value, classes, bad.source[row]["words"])
            elif row == 0 and column.kind == "class" and _has_header(values):
                what = f"{error} {HEADER}"
            bad.add(row, column.name, what)
    return ids


def _refuse_found(column: Column, labels: Sequence[Any], bad: BadRows) -> None:
    """Find labels that are no classes, unless they are named as such."""
    if _has_header(labels):
        what = f"has the label {labels[0]!r}, while all others are whole numbers."
        bad.add(0, column.name, f"{what} {HEADER}")
    for row, label in enumerate(labels):
        if label is not None and label.lower() == "nan":
            bad.add(
                row,
                column.name,
                f"has the label {label!r}, which often marks a row without one. Fill "
                "it in, remove the row, or name it in class_names.",
            )


def _has_header(labels: Sequence[str | None]) -> bool:
    known = [label for label in labels if label is not None]
    return labels[0] is not None and is_header(known)


def _row_ids(value: Any, classes: Classes) -> int | list[int]:
    if isinstance(value, str):
        return classes.id(value)
    if isinstance(value, dict):
        flags = {classes.id(label): is_on for label, is_on in value.items()}
        return [i for i, is_on in flags.items() if is_on]
    try:
        return [classes.ids[label] for label in value]
    except KeyError as error:
        raise BadValueError(classes.unknown(error.args[0])) from None


def _unknown_tag(tags: Sequence[str], classes: Classes, words: Sequence[Any]) -> str:
    place, tag = next((i, tag) for i, tag in enumerate(tags) if tag not in classes.ids)
    what = f"at word {place + 1}, {plain(words[place])!r}, the tag"
    return classes.unknown(tag, what)


def _labels(value: Any) -> Iterable[str]:
    return (value,) if isinstance(value, str) else value
