# SPDX-License-Identifier: Apache-2.0
"""The few lengths that batches are padded to, so that few programs are compiled."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from jft.data.batches.order import RowOrder
from jft.types import InputError

Lengths = dict[str, int]  # group of fields -> tokens

MOST_CANDIDATES = 2048  # the programme takes their number squared
SAMPLED_BATCHES = 500
SAMPLED_EPOCHS = 20


def choose_lengths(
    lengths: Mapping[str, np.ndarray],
    *,
    global_batch_size: int,
    num_lengths: int,
    max_lengths: Mapping[str, int] | None = None,
) -> tuple[Lengths, ...]:
    """Choose the lengths that give the least padding to batches grouped by length.

    Exact for the batches of a sample of epochs, in `grouped_order`, by dynamic
    programming over all lengths that are multiples of 8. With two groups
    whose pairs of lengths are more than 2,048, the multiple is doubled until they are
    not.

    Args:
      lengths: tokens of each row, int [N], by group, as `TokenTable.lengths`.
      global_batch_size: rows a batch, over all processes.
      num_lengths: the most to choose, at least 1; each costs a compilation.
      max_lengths: no length is longer than this, by group; for models with a limit.

    Returns:
      ``({group: tokens}, …)``, ascending: each holds the one before, the last every
      row.

    Raises:
      InputError: if ``num_lengths`` is below 1 or a row longer than ``max_lengths``.

    Example:
      >>> lengths = {"input": np.array([3, 4, 5, 60, 61, 62, 30, 31])}
      >>> choose_lengths(lengths, global_batch_size=2, num_lengths=2)
      ({'input': 32}, {'input': 64})
    """
    total = total_lengths(lengths)
    order = RowOrder(len(total), seed=0, batch_size=global_batch_size, lengths=total)
    batches = sample_batches(order)
    maxima = {
        group: np.array([of_rows[rows].max() for rows in batches])
        for group, of_rows in lengths.items()
    }
    return fit_lengths(maxima, num_lengths=num_lengths, max_lengths=max_lengths)


def sample_batches(order: RowOrder) -> list[np.ndarray]:
    """Return the rows of the global batches of some epochs, at least of one."""
    num_rows, size = order.num_rows, order.batch_size
    epochs = min(SAMPLED_EPOCHS, SAMPLED_BATCHES * size // num_rows + 1)
    return [order.rows(step) for step in range(-(-epochs * num_rows // size))]


def fit_lengths(
    maxima: Mapping[str, np.ndarray],
    *,
    num_lengths: int,
    multiple: int = 8,
    max_lengths: Mapping[str, int] | None = None,
) -> tuple[Lengths, ...]:
    """Choose as `choose_lengths` does, for batches that are known.

    Args:
      maxima: of each batch the longest row, int [number of batches], by group.
      num_lengths: likewise.
      multiple: likewise.
      max_lengths: likewise.
    """
    if num_lengths < 1 or multiple < 1:
        raise InputError(
            f"num_lengths is {num_lengths} and multiple {multiple}; expected whole "
            "numbers of at least 1."
        )
    groups = list(maxima)
    limits = dict(max_lengths or {})
    for group in groups:
        if (longest := int(maxima[group].max())) > limits.get(group, longest):
            raise InputError(
                f"a row has {longest} tokens in the group {group!r}, more than the "
                f"{limits[group]} of max_lengths. Cut it when tokenizing, or raise it."
            )
    while True:
        rounded = [_round(maxima[g], multiple, limits.get(g)) for g in groups]
        if np.prod([len(np.unique(x)) for x in rounded]) <= MOST_CANDIDATES:
            break
        multiple *= 2
    chosen = _cheapest_chain(np.stack(rounded, axis=1), num_lengths)
    return tuple(dict(zip(groups, row, strict=True)) for row in chosen.tolist())


def _round(lengths: np.ndarray, multiple: int, limit: int | None) -> np.ndarray:
    up = np.maximum(-(-lengths.astype(np.int64) // multiple) * multiple, 1)
    return up if limit is None else np.minimum(up, limit)


def _cheapest_chain(maxima: np.ndarray, most: int) -> np.ndarray:
    """The chain of at most ``most`` rows that holds all of ``maxima`` at least cost.

    Row ``s`` holds ``m`` if it is at least as large in every column; each ``m`` costs
    the sum of the first row that holds it. What a chain from the smallest costs up to
    ``s`` depends on the row before ``s`` alone, which is what the programme tries.

    Args:
      maxima: int [number of batches, groups].
      most: rows.

    Returns:
      int [rows, groups], ascending.
    """
    batches, counts = np.unique(maxima, axis=0, return_counts=True)
    shapes = _candidates(batches)
    held = _holds(shapes[:, None], batches[None]) @ counts  # [S]
    price = shapes.sum(axis=1)
    cost = np.full((most, len(shapes)), np.inf)  # of chains of k + 1 rows that end in s
    before = np.zeros((most, len(shapes)), int)
    cost[0] = held * price
    for s in range(1, len(shapes)):
        below = np.flatnonzero(_holds(shapes[s], shapes[:s]))
        if most == 1 or not len(below):
            continue
        tried = cost[:-1, below] + (held[s] - held[below]) * price[s]
        best = tried.argmin(axis=1)
        cost[1:, s] = tried[np.arange(most - 1), best]
        before[1:, s] = below[best]
    chain = [len(shapes) - 1]  # the last holds everything
    for k in range(int(cost[:, -1].argmin()), 0, -1):
        chain.append(int(before[k, chain[-1]]))
    return np.asarray(shapes[chain[::-1]])


def _candidates(batches: np.ndarray) -> np.ndarray:
    """The rows that a chain can need, ascending in their sum: maxima of some batches.

    A row that is no maximum of what it holds could be smaller and hold the same.
    """
    columns = [np.unique(column) for column in batches.T]
    grid = np.stack(np.meshgrid(*columns, indexing="ij"), -1).reshape(-1, len(columns))
    held = _holds(grid[:, None], batches[None])
    joins = [np.where(held, column, 0).max(axis=1) for column in batches.T]
    grid = grid[(np.stack(joins, axis=1) == grid).all(axis=1)]
    return np.asarray(grid[np.argsort(grid.sum(axis=1), kind="stable")])


def _holds(larger: np.ndarray, smaller: np.ndarray) -> np.ndarray:
    return np.asarray((larger >= smaller).all(axis=-1))


def total_lengths(lengths: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the tokens of each row over all groups, int64 [N]."""
    return np.asarray(np.sum(list(lengths.values()), axis=0, dtype=np.int64))


def first_holding(shapes: Sequence[Lengths], longest: Mapping[str, int]) -> Lengths:
    """Return the first of ascending shapes that is as long as ``longest``."""
    return next(s for s in shapes if all(s[g] >= n for g, n in longest.items()))


def check_shapes(
    shapes: Sequence[Mapping[str, int]], row_lengths: Mapping[str, np.ndarray]
) -> tuple[Lengths, ...]:
    """Return shapes as plain dicts, after a look at them.

    Raises:
      InputError: if they do not name the groups of the rows, do not ascend, or if the
        last is shorter than a row.
    """
    plain = tuple({g: int(n) for g, n in shape.items()} for shape in shapes)
    if not plain or any(shape.keys() != row_lengths.keys() for shape in plain):
        raise InputError(
            f"the shapes {list(plain)} do not fit rows with lengths of "
            f"{sorted(row_lengths)}; give each shape a length for each of these."
        )
    for shape, larger in pairwise(plain):
        if shape == larger or any(shape[g] > larger[g] for g in shape):
            raise InputError(
                f"the shapes {list(plain)} do not ascend; each must be at least as "
                "long as the one before, in every group."
            )
    longest = {group: int(x.max()) for group, x in row_lengths.items()}
    if any(plain[-1][group] < n for group, n in longest.items()):
        raise InputError(
            f"the longest rows have {longest} tokens, more than the last of the shapes "
            f"{list(plain)}. Give a longer one, or cut the rows when tokenizing."
        )
    return plain
