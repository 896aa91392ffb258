# SPDX-License-Identifier: Apache-2.0
"""Which row is where in the endless stream: each epoch visits every row once."""

from functools import lru_cache
from typing import Any

import numpy as np

WINDOW = 50  # batches whose rows are sorted by length together
KEPT_EPOCHS = 4  # a batch may hold the end of one and the start of the next


@lru_cache(maxsize=KEPT_EPOCHS)
def epoch_order(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation; grain's own shuffle takes 0.25 ms an example of a small source."""
    return np.random.default_rng((seed, epoch)).permutation(num_rows)


def row_generator(seed: int, place: int) -> np.random.Generator:
    """The source of random changes of one place in the stream, or of one row."""
    return np.random.default_rng((seed, place, 1))


class RowOrder:
    """The rows of every global batch, a pure function of what it is made of.

    With ``lengths``, rows of about one length come together, see `grouped_order`, or
    rows of all lengths in each batch, see `mixed_order`.

    Args:
      num_rows: in an epoch.
      seed: of the order.
      batch_size: rows of a global batch.
      lengths: tokens of each row, int [N]; None is a plain permutation.
      mixed: give each batch rows of all lengths, not of one.
    """

    def __init__(
        self,
        num_rows: int,
        *,
        seed: int,
        batch_size: int,
        lengths: np.ndarray | None = None,
        mixed: bool = False,
    ) -> None:
        self.num_rows = num_rows
        self.batch_size = batch_size
        self._seed = seed
        self._lengths = lengths
        self._arrange = mixed_order if mixed else grouped_order
        self._open_cache()

    def rows(self, step: int) -> np.ndarray:
        """Return the rows of a step's global batch, int64 [B]."""
        place, stop = step * self.batch_size, (step + 1) * self.batch_size
        parts = []
        while place < stop:
            epoch, start = divmod(place, self.num_rows)
            parts.append(self._epoch(epoch)[start : start + stop - place])
            place += len(parts[-1])
        return np.concatenate(parts)

    def _make_epoch(self, epoch: int) -> np.ndarray:
        if self._lengths is None:
            return epoch_order(self.num_rows, self._seed, epoch)
        return self._arrange(
            self._lengths,
            np.random.default_rng((self._seed, epoch)),
            batch_size=self.batch_size,
            first=-epoch * self.num_rows % self.batch_size,
        )

    def _open_cache(self) -> None:
        self._epoch = lru_cache(KEPT_EPOCHS)(self._make_epoch)

    def __getstate__(self) -> dict[str, Any]:
        return {name: x for name, x in vars(self).items() if name != "_epoch"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open_cache()


def grouped_order(
    lengths: np.ndarray,
    generator: np.random.Generator,
    *,
    batch_size: int,
    first: int = 0,
    window: int = WINDOW,
) -> np.ndarray:
    """Permute rows so that the rows of a batch are of about one length.

    A permutation is cut into windows of ``window`` batches, which are sorted by length:
    upwards and downwards in turn, so that rows are alike across a border too. What
    results is cut into batches, which are shuffled.

    Args:
      lengths: tokens of each row, int [N].
      generator: consumed.
      batch_size: rows of a batch.
      first: rows that the batch shared with the epoch before still takes; they are a
        piece of their own, and so are those that are left for the next epoch.
      window: batches.

    Returns:
      The rows in their order, int64 [N].

    Example:
      >>> lengths = np.array([9, 1, 5, 8, 2, 6])
      >>> order = grouped_order(lengths, np.random.default_rng(0), batch_size=2)
      >>> lengths[order].reshape(3, 2)
      array([[1, 2],
             [5, 6],
             [8, 9]])
    """
    num_rows = len(lengths)
    order = generator.permutation(num_rows)
    size = window * batch_size
    for number, start in enumerate(range(0, num_rows, size)):
        rows = order[start : start + size]
        up = rows[np.argsort(lengths[rows], kind="stable")]
        order[start : start + size] = up[::-1] if number % 2 else up
    sizes = _piece_sizes(num_rows, batch_size, first)
    layout = generator.permutation(len(sizes))  # the piece at each place of `order`
    starts = np.empty_like(sizes)
    starts[layout] = np.cumsum(sizes[layout]) - sizes[layout]
    moved = np.repeat(starts - (np.cumsum(sizes) - sizes), sizes)
    return np.asarray(order[moved + np.arange(num_rows)])


def mixed_order(
    lengths: np.ndarray,
    generator: np.random.Generator,
    *,
    batch_size: int,
    first: int = 0,
) -> np.ndarray:
    """Permute rows so that every batch has about equally many tokens.

    The shortest rows, as many as there are batches, are spread over the batches at
    random, then the next ones, and so on: a batch has a row of each quantile.

    Args:
      lengths: tokens of each row, int [N].
      generator: consumed.
      batch_size: rows of a batch.
      first: rows that the batch shared with the epoch before still takes; they are of
        all lengths too, and so are those that are left for the next epoch.

    Returns:
      The rows in their order, int64 [N].

    Example:
      >>> lengths = np.array([9, 1, 8, 2, 7, 3])
      >>> order = mixed_order(lengths, np.random.default_rng(0), batch_size=2)
      >>> np.sort(lengths[order].reshape(3, 2)).max(axis=0)
      array([3, 9])
    """
    num_rows = len(lengths)
    sizes = _piece_sizes(num_rows, batch_size, first)
    piece = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(num_rows) - (np.cumsum(sizes) - sizes)[piece]
    quantile = (place + generator.random(num_rows)) / sizes[piece]
    shuffled = generator.permutation(num_rows)
    ascending = shuffled[np.argsort(lengths[shuffled], kind="stable")]
    order = np.empty(num_rows, np.int64)
    order[np.argsort(quantile)] = ascending
    within = np.lexsort((generator.random(num_rows), piece))  # no longer by length
    return np.asarray(order[within])


def _piece_sizes(num_rows: int, batch_size: int, first: int) -> np.ndarray:
    """Rows of an epoch in the batch it shares, in its own, and for the next epoch."""
    first = min(first, num_rows)
    whole, last = divmod(num_rows - first, batch_size)
    return np.array([first, *[batch_size] * whole, last])
