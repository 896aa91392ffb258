# SPDX-License-Identifier: Apache-2.0
"""What would make a score meaningless: splits that share rows, or lack a class."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, TypeAlias

import numpy as np

from jft.data.examples.encoding import Ragged
from jft.data.examples.examples import Examples
from jft.data.examples.kinds import KINDS
from jft.data.examples.splits import TRAIN, Subset, row_key
from jft.data.examples.values import BadValueError
from jft.data.sources.source import SelectedColumns, Source, digest
from jft.types import InputError

Splits: TypeAlias = Mapping[str, Examples | Source]
SHOWN = 3  # of what two splits share


def check_splits(
    splits: Splits,
    *,
    id_column: str | None = None,
    group: str | None = None,
    global_batch_size: int | None = None,
) -> None:
    """Refuse splits that a model cannot be fairly trained and tested on.

    Args:
      splits: by name; classes are compared where they are `Examples`.
      id_column: whose values must not be in two splits; None takes ``id`` of the
        sources that have it, unless it only counts the rows of a file or repeats the
        names of images in a folder.
      group: another such column, whose values hold rows together.
      global_batch_size: of training, where an example is a row of it.

    Raises:
      InputError: if a split is empty, if two share rows, ids or groups or are the
        same data, if they do not have the same classes, if ``train`` lacks one of
        them, or has fewer examples than a batch; says where.
    """
    for name, split in splits.items():
        if not len(split):
            raise InputError(f"the split {name!r} is empty; add rows to it.")
    sources = {name: _raw(split) for name, split in splits.items()}
    for one, other in combinations(sources, 2):
        _check_rows(sources, one, other)
        _check_shared(sources, one, other, id_column or "id", named=bool(id_column))
        if group is not None:
            _check_shared(sources, one, other, group, named=True)
    _check_classes({k: s for k, s in splits.items() if isinstance(s, Examples)})
    train = splits.get(TRAIN)
    if train is not None and len(train) < (global_batch_size or 0):
        raise InputError(
            f"the split 'train' has {len(train)} examples, fewer than a batch of "
            f"{global_batch_size}. Make the batch smaller."
        )


def count_shared(splits: Splits, columns: Sequence[str]) -> dict[tuple[str, str], int]:
    """Count the examples of other splits whose content is also one of ``train``'s.

    That is no error: real data repeats itself (SST-2 has the same short sentences in
    its files), but scores on such examples are of memory.

    Args:
      splits: by name.
      columns: what is compared, exactly and case by case; not of images, which
        sources give by their files' names.

    Returns:
      ``{("train", other): count}``, by the order of the splits.

    Example:
      >>> from jft.data.sources.source import ArraySource
      >>> train, test = ArraySource({"text": ["a", "b"]}), ArraySource({"text": ["b"]})
      >>> count_shared({"train": train, "test": test}, ["text"])
      {('train', 'test'): 1}
    """
    if TRAIN not in splits:
        return {}
    known = set(_contents(splits[TRAIN], columns))
    return {
        (TRAIN, name): sum(content in known for content in _contents(split, columns))
        for name, split in splits.items()
        if name != TRAIN
    }


def _contents(split: Examples | Source, columns: Sequence[str]) -> Iterator[str]:
    values = zip(*(split.column(name) for name in columns), strict=True)
    return (digest(map(_content, row)) for row in values)


def _content(value: Any) -> str | np.ndarray:
    if isinstance(value, str | np.ndarray):
        return value
    return json.dumps(value, sort_keys=True, default=str)


# --- shared rows ----------------------------------------------------------------------
def _raw(split: Examples | Source) -> Source:
    return split.source if isinstance(split, Examples) else split


def _base(source: Source) -> tuple[Source, np.ndarray]:
    """The source that a subset is of, however often it was divided, and its rows."""
    rows = np.arange(len(source))
    while isinstance(source, Subset | SelectedColumns):
        rows = source.indices[rows] if isinstance(source, Subset) else rows
        source = source.source
    return source, rows


def _check_rows(sources: Mapping[str, Source], one: str, other: str) -> None:
    (a, rows), (b, other_rows) = _base(sources[one]), _base(sources[other])
    if repr(a) != repr(b):
        return
    shared = np.intersect1d(rows, other_rows)
    if len(shared):
        column = a.columns[0]
        raise InputError(
            f"the splits {one!r} and {other!r} share {len(shared)} rows of the same "
            f"data, the first {a.where(int(shared[0]), column)}. Give each its own "
            "file, or draw them from one by sizes."
        )


def _check_shared(
    sources: Mapping[str, Source], one: str, other: str, column: str, *, named: bool
) -> None:
    """Refuse a value of a column that is in two splits; asked for by name or not."""
    pair = [sources[one], sources[other]]
    absent = [s for s in pair if column not in s.columns]
    if absent and named:
        raise InputError(
            f"the splits are to be compared by the column {column!r}; the data has "
            f"the columns {list(absent[0].columns)}."
        )
    if absent:
        return
    first, second = (_first_rows(source, column) for source in pair)
    shared = [value for value in first if value in second]
    if shared and (named or not all(_is_local(s, column) for s in pair)):
        some = "; ".join(
            f"{value!r} in {pair[0].where(first[value], column)} and in "
            f"{pair[1].where(second[value], column)}"
            for value in shared[:SHOWN]
        )
        raise InputError(
            f"the splits {one!r} and {other!r} share {len(shared)} values of the "
            f"column {column!r}, so one is learned from what tests the other: {some}. "
            "Remove them from one, or divide by group."
        )


def _first_rows(source: Source, column: str) -> dict[str, int]:
    rows: dict[str, int] = {}
    for row, value in enumerate(source.column(column)):
        try:
            key = row_key(value)
        except BadValueError as error:
            raise InputError(f"{source.where(row, column)} {error}") from None
        if key:
            rows.setdefault(key, row)
    return rows


def _is_local(source: Source, column: str) -> bool:
    """Tell whether ids mean nothing beside those of another file or folder."""
    while isinstance(source, Subset):
        source = source.source
    ids = source.column(column)
    return any(
        all(row_key(value) == str(row) for row, value in enumerate(ids, start=start))
        for start in (0, 1)
    ) or any(
        all(
            isinstance(value, str) and isinstance(name, str) and value == name
            for value, name in zip(ids, source.column(other), strict=True)
        )
        for other in source.columns
        if other != column
    )


# --- classes --------------------------------------------------------------------------
def _check_classes(splits: Mapping[str, Examples]) -> None:
    if TRAIN not in splits:
        return
    train = splits[TRAIN]
    for name, split in splits.items():
        if split.class_names != train.class_names:
            raise InputError(
                f"the split {name!r} has the classes {list(split.class_names)}, but "
                f"'train' has {list(train.class_names)}. Make the examples of every "
                "split with the class_names of 'train'."
            )
    for column in train.fields:
        if KINDS[column.kind].order is not None:
            _check_trained(splits, column.name, is_tags=column.kind == "tags")


def _check_trained(
    splits: Mapping[str, Examples], field: str, *, is_tags: bool
) -> None:
    """Refuse a class without a training example; a tag, where others have it."""
    train = splits[TRAIN]
    present = set(_classes_of(train, field).tolist())
    for i, class_name in enumerate(train.class_names):
        if i in present:
            continue
        elsewhere = [
            f"{name!r} has it: {split.where(row, field)}"
            for name, split in splits.items()
            if field in split.encoded and (row := _row_of(split, field, i)) is not None
        ]
        if elsewhere or not is_tags:
            raise InputError(
                f"the split 'train' has no example of the class {class_name!r}; "
                f"{'; '.join(elsewhere) or 'no other split has one either'}. Divide "
                "class by class, make 'train' larger, or leave the class out."
            )


def _classes_of(examples: Examples, field: str) -> np.ndarray:
    encoded = examples.encoded[field]
    if isinstance(encoded, Ragged):
        return np.unique(encoded.values)
    return np.unique(encoded) if encoded.ndim == 1 else np.flatnonzero(encoded.any(0))


def _row_of(examples: Examples, field: str, class_id: int) -> int | None:
    """The first example of a class."""
    encoded = examples.encoded[field]
    if isinstance(encoded, Ragged):
        places = np.flatnonzero(encoded.values == class_id)
        rows = np.searchsorted(encoded.offsets, places, side="right") - 1
    elif encoded.ndim == 1:
        rows = np.flatnonzero(encoded == class_id)
    else:
        rows = np.flatnonzero(encoded[:, class_id])
    return int(rows[0]) if len(rows) else None
