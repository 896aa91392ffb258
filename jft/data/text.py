# SPDX-License-Identifier: Apache-2.0
"""Labelled texts, or pairs of texts, from a table."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from jft.data.delimited import Table
from jft.data.sources import digest
from jft.types import InputError


class TextSource:
    """One text, or two, and a class a row; all held in memory.

    A label is the name of its class. Where none of the labels is a name that was
    given, whole numbers are the ids of the classes, counted from 0.
    ``repr`` tells the texts and their classes apart, not where the file lies.

    Args:
      table: the rows.
      text_column: of the text; a position from 0, or a name.
      pair_column: of the second text, or None.
      label_column: of the class.
      class_names: the classes in order; None takes the labels that are found, sorted,
        as numbers where all are. Give the training classes when reading a test file.

    Raises:
      InputError: for an absent column, an empty text, or a label that is no class;
        names row and column.
    """

    def __init__(
        self,
        table: Table,
        *,
        text_column: int | str,
        label_column: int | str,
        pair_column: int | str | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        self._texts = _texts(table, text_column)
        self._pairs = None if pair_column is None else _texts(table, pair_column)
        labels = [label.strip() for label in table.column(label_column)]
        self.class_names = (
            _found(table, label_column, labels)
            if class_names is None
            else tuple(class_names)
        )
        ids = {name: i for i, name in enumerate(self.class_names)}
        by_id = not set(labels) & set(ids) and any(map(str.isdecimal, labels))
        if by_id:
            ids = {str(i): i for i in ids.values()}
        for row, label in enumerate(labels):
            if label not in ids:
                which = f", or their ids 0 to {len(ids) - 1}" if by_id else ""
                raise InputError(
                    f"{table.where(row, label_column)} has the label {label!r}; "
                    f"expected one of {list(self.class_names)}{which}. Correct it, or "
                    "class_names."
                )
        self.targets = np.array([ids[label] for label in labels], np.int32)
        self._file, self._lines = table.path.name, table.lines

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        pair = {} if self._pairs is None else {"text_pair": self._pairs[index]}
        return {
            "text": self._texts[index],
            **pair,
            "targets": self.targets[index],
            "id": f"{self._file}, line {self._lines[index]}",
        }

    @cached_property
    def _digest(self) -> str:
        return digest([*self._texts, *(self._pairs or ()), self.targets])

    def __repr__(self) -> str:
        return (
            f"TextSource({len(self)} examples, {len(self.class_names)} classes, "
            f"{self._digest})"
        )


def _texts(table: Table, column: int | str) -> tuple[str, ...]:
    texts = table.column(column)
    for row, text in enumerate(texts):
        if not text.strip():
            raise InputError(
                f"{table.where(row, column)} holds no text. Fill it in, or remove the "
                "row."
            )
    return texts


def _found(table: Table, column: int | str, labels: Sequence[str]) -> tuple[str, ...]:
    """The labels of a column, sorted, as numbers where all are."""
    if "" in labels:
        where = table.where(labels.index(""), column)
        raise InputError(f"{where} has no label. Fill it in, or remove the row.")
    numeric = [label.isdecimal() for label in labels]
    if len(labels) > 1 and all(numeric[1:]) and not numeric[0]:
        raise InputError(
            f"{table.where(0, column)} has the label {labels[0]!r}, while all others "
            "are whole numbers. If it is the name of the column, set header to True."
        )
    return tuple(sorted(set(labels), key=int if all(numeric) else None))
