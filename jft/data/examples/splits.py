# SPDX-License-Identifier: Apache-2.0
"""Splits of one source that never share a row: by size, class by class, by group."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jft.data.examples.classes import sort_names
from jft.data.examples.values import BadValueError, is_missing, plain, show
from jft.data.sources.source import Source, digest
from jft.types import InputError

Size = int | float | str  # a count, a fraction, or "rest"
TRAIN = "train"  # the split that is learned from


class Subset:
    """The rows of ``source`` at ``indices``, in their order; a `Source` too."""

    def __init__(self, source: Source, indices: np.ndarray) -> None:
        self.source = source
        self.indices = np.asarray(indices, np.int64)
        self.columns = source.columns

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.source[int(self.indices[index])]

    def column(self, name: str) -> Sequence[Any]:
        """Return the values of a column."""
        values = self.source.column(name)
        return [values[index] for index in self.indices.tolist()]

    def where(self, index: int, column: str) -> str:
        """Say where a value stands."""
        return self.source.where(int(self.indices[index]), column)

    def __repr__(self) -> str:
        return f"Subset({self.source!r}, {len(self)}, {digest([self.indices])})"


def split_source(
    source: Source,
    sizes: Mapping[str, Size],
    *,
    seed: int,
    per_class: bool = False,
    stratify: str | None = None,
    group: str | None = None,
) -> dict[str, Subset]:
    """Divide a source by rule; the same arguments give the same splits.

    Args:
      source: what to divide.
      sizes: ``{split: size}``. A whole number counts rows, a float from 0 to 1 is a
        fraction, and ``"rest"``, at most once, is what the others leave.
      seed: of the draw.
      per_class: counts and fractions are of each class, a value of the column
        ``targets``, not of the whole. Rows without a value go to ``train``, or the
        first split, where `make_examples` finds them.
      stratify: a column whose values each split has in the source's proportions, to
        within two rows of each; sizes are of the whole. Of a rare value ``train``
        gets the first row.
      group: a column; all rows with one value of it, such as a speaker or a document,
        go to one split. Groups are drawn until the rows of a split and of those
        before it are reached, so sizes are met only about as well as the largest
        group allows.

    Returns:
      ``{split: Subset}`` in the order of ``sizes``, each in the source's order.

    Raises:
      InputError: if a size is none of these, if they sum to more than there is, if a
        split is empty, for more than one of the three rules, or for an absent column.

    Example:
      >>> from jft.data.sources.source import ArraySource
      >>> source = ArraySource({"targets": np.arange(10) % 2})
      >>> sizes = {"train": 2, "test": "rest"}
      >>> {k: len(v) for k, v in
      ...  split_source(source, sizes, seed=0, per_class=True).items()}
      {'train': 4, 'test': 6}
    """
    _check_sizes(sizes)
    rules = {"per_class": per_class, "stratify": stratify, "group": group}
    if sum(map(bool, rules.values())) > 1:
        raise InputError(
            f"splits are drawn by one rule, but {rules} are given. Keep one of them."
        )
    generator = np.random.default_rng(seed)
    if group is not None:
        rows = _draw_groups(source, sizes, group, generator)
    elif stratify is not None:
        rows = _draw_strata(source, sizes, stratify, generator)
    elif per_class:
        rows = _draw_classes(source, sizes, generator)
    else:
        counts = _counts(sizes, len(source), "the source")
        rows = _deal(np.arange(len(source)), counts, generator)
    for name, drawn in rows.items():
        if not len(drawn):
            raise InputError(
                f"the split {name!r} is empty; give it a larger size or the others "
                f"smaller ones{'' if group is None else ', or divide without group'}."
            )
    return {name: Subset(source, np.sort(drawn)) for name, drawn in rows.items()}


# --- the draw -------------------------------------------------------------------------
Rows = dict[str, np.ndarray]  # by split


def _deal(
    pool: np.ndarray, counts: Mapping[str, int], generator: np.random.Generator
) -> Rows:
    borders = np.cumsum(list(counts.values()))
    parts = np.split(generator.permutation(pool), borders)
    return dict(zip(counts, parts[:-1], strict=True))


def _join(parts: Sequence[Rows]) -> Rows:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _draw_classes(
    source: Source, sizes: Mapping[str, Size], generator: np.random.Generator
) -> Rows:
    names, values = _values(source, "targets")
    parts = []
    for value, name in enumerate(names):
        pool = np.flatnonzero(values == value)
        if not name:  # no class; where it stays in sight
            first = TRAIN if TRAIN in sizes else next(iter(sizes))
            parts.append({key: pool if key == first else pool[:0] for key in sizes})
            continue
        what = f"class {name!r} (as in {source.where(int(pool[0]), 'targets')})"
        parts.append(_deal(pool, _counts(sizes, len(pool), what), generator))
    return _join(parts)


def _draw_strata(
    source: Source,
    sizes: Mapping[str, Size],
    column: str,
    generator: np.random.Generator,
) -> Rows:
    names, values = _values(source, column)
    counts = _counts(sizes, len(source), "the source")
    unused = len(source) - sum(counts.values())
    table = _share_out(
        np.bincount(values, minlength=len(names)), np.array([*counts.values(), unused])
    )
    if TRAIN in counts:
        _keep_rare(table, list(counts).index(TRAIN))
    return _join(
        [
            _deal(
                np.flatnonzero(values == value),
                dict(zip(counts, table[value, :-1].tolist(), strict=True)),
                generator,
            )
            for value in range(len(names))
        ]
    )


def _share_out(strata: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Whole numbers [strata, splits] with these sums, each within 1 of its share.

    Shares are rounded down; what a stratum then lacks goes, one each, to the splits
    that lack most, which always comes out even (Gale and Ryser's 0/1 matrices).
    """
    shares = strata[:, None] * counts
    table: np.ndarray
    table, parts = np.divmod(shares, strata.sum())
    lacking = counts - table.sum(axis=0)
    for row, more in enumerate(strata - table.sum(axis=1)):
        chosen = np.lexsort((-parts[row], -lacking))[:more]
        table[row, chosen] += 1
        lacking[chosen] -= 1
    assert not lacking.any()
    return table


def _keep_rare(table: np.ndarray, train: int) -> None:
    """Swap one row of each stratum that lacks any into ``train``."""
    for row in np.flatnonzero(table[:, train] == 0):
        donor, split = table[:, train].argmax(), table[row].argmax()
        if table[donor, train] > 1:
            table[row, [split, train]] += (-1, 1)
            table[donor, [split, train]] += (1, -1)


def _draw_groups(
    source: Source,
    sizes: Mapping[str, Size],
    column: str,
    generator: np.random.Generator,
) -> Rows:
    names, values = _values(source, column)
    if "" in names:
        row = int(np.flatnonzero(values == names.index(""))[0])
        raise InputError(
            f"{source.where(row, column)} holds no value, so its group is unknown. "
            "Fill it in, remove the row, or divide without group."
        )
    order = generator.permutation(len(names))
    lengths = np.bincount(values, minlength=len(names))[order]
    counts = _counts(sizes, len(source), "the source")
    # a group belongs to the split in which its first row would lie
    borders = np.cumsum(list(counts.values()))
    starts = np.cumsum(lengths) - lengths
    split_of = np.empty(len(names), np.int64)
    split_of[order] = np.searchsorted(borders, starts, side="right")
    return {
        name: np.flatnonzero(split_of[values] == split)
        for split, name in enumerate(counts)
    }


def _values(source: Source, column: str) -> tuple[tuple[str, ...], np.ndarray]:
    """The different values of a column, sorted, and which one each row has."""
    if column not in source.columns:
        raise InputError(
            f"the splits are to be drawn by the column {column!r}; the data has the "
            f"columns {list(source.columns)}."
        )
    keys = []
    for row, value in enumerate(source.column(column)):
        try:
            keys.append(row_key(value))
        except BadValueError as error:
            raise InputError(f"{source.where(row, column)} {error}") from None
    names = sort_names(keys)
    position = {name: i for i, name in enumerate(names)}
    return names, np.array([position[key] for key in keys], np.int64)


def row_key(value: Any) -> str:
    """Return what tells a value from others of its column; blank where it is missing.

    Raises:
      BadValueError: if it is a list or another value of several parts.

    Example:
      >>> row_key(" a "), row_key(2.0), row_key(None)
      ('a', '2', '')
    """
    value = plain(value)
    if is_missing(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str | int | float):
        return str(value).strip()
    raise BadValueError(f"holds {show(value)}; expected one value a row to go by.")


# --- sizes ----------------------------------------------------------------------------
def _check_sizes(sizes: Mapping[str, Size]) -> None:
    for name, size in sizes.items():
        whole = isinstance(size, int) and not isinstance(size, bool) and size > 0
        if not (whole or size == "rest" or (isinstance(size, float) and 0 < size <= 1)):
            raise InputError(
                f"split {name!r} has size {size!r}; expected a whole number above 0, "
                'a fraction above 0 and at most 1, or "rest".'
            )
    if sum(size == "rest" for size in sizes.values()) > 1:
        raise InputError(
            f'more than one split is "rest": {dict(sizes)}. Give all but one a size.'
        )


def _counts(sizes: Mapping[str, Size], total: int, pool: str) -> dict[str, int]:
    """Examples a split; fractions are rounded on their running sum, so all are used."""
    counts: dict[str, int] = {}
    running = 0.0
    for name, size in sizes.items():
        if isinstance(size, float):
            before, running = running, running + size
            counts[name] = round(running * total) - round(before * total)
        else:
            counts[name] = 0 if isinstance(size, str) else size
    left = total - sum(counts.values())
    if left < 0:
        raise InputError(
            f"the splits {dict(sizes)} ask for {total - left} examples of {pool}, "
            f"which has {total}. Make them smaller."
        )
    return {name: left if sizes[name] == "rest" else n for name, n in counts.items()}
