# SPDX-License-Identifier: Apache-2.0
"""Several rows of tokens in one, so that hardly anything is padding.

Rows with a value a token in every field are packed once, for good: `pack`. Examples
with one answer each stay together in their batch, and each batch is packed as it is
made: `pack_batch`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jft.data.batches.token_table import RowChange, TokenTable
from jft.data.fields.padding import Pad
from jft.data.sources.source import digest
from jft.types import InputError

REPLACED = "attention_mask"  # segment_ids say what is padding
PACKING = ("segment_ids", "position_ids", "first_tokens")  # fields that packing adds


class PackedTable:
    """Rows of a token table, several in one; made by `pack`.

    ``packed[i]`` is ``{field: int32 [tokens]}``: the model's fields of its rows one
    after another, ``segment_ids`` (1 for the first row, 2, …) and ``position_ids``,
    which begin at 0 in each row. In a batch both are filled up with 0. There is no
    ``attention_mask``: a token sees its own segment only.
    """

    padding_side = "right"
    host_fields: tuple[str, ...] = ()

    def __init__(
        self, table: TokenTable, bins: np.ndarray, order: np.ndarray, *, length: int
    ) -> None:
        """Put row ``order[i]`` of the table into row ``bins[i]``, in the order of i."""
        self.table = table
        self.length = length
        self.settings = table.settings
        (group,) = table.lengths
        self.padding = {n: table.padding[n] for n in _packed_fields(table)} | {
            "position_ids": Pad(0, group),
            "segment_ids": Pad(0, group),
        }
        self._rows = order[np.argsort(bins, kind="stable")]
        self._offsets = np.cumsum([0, *np.bincount(bins)])
        tokens = np.bincount(bins, weights=table.lengths[group][order])
        self.lengths = {group: tokens.astype(np.int32)}
        self._digest = digest([self._rows, self._offsets])

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.read(index)

    def read(self, index: int, change: RowChange | None = None) -> dict[str, Any]:
        """Return a packed row, after a change of each row that is in it."""
        rows = [self.table.read(int(row), change) for row in self.rows_of(index)]
        names = [name for name in rows[0] if name in self.padding]
        lengths = [len(row[names[0]]) for row in rows]
        numbers = np.arange(1, len(rows) + 1, dtype=np.int32)
        positions = [np.arange(n, dtype=np.int32) for n in lengths]
        return {
            **{name: np.concatenate([row[name] for row in rows]) for name in names},
            "position_ids": np.concatenate(positions),
            "segment_ids": np.repeat(numbers, lengths),
        }

    def rows_of(self, index: int) -> np.ndarray:
        """Return the table's rows that a packed row holds, in their order, int64."""
        index = range(len(self))[index]  # refuses what is outside
        return np.asarray(self._rows[self._offsets[index] : self._offsets[index + 1]])

    @property
    def fill_rate(self) -> float:
        """The share of all tokens that is no padding."""
        (tokens,) = self.lengths.values()
        return float(tokens.sum(dtype=np.int64)) / (len(self) * self.length)

    def __repr__(self) -> str:
        return (
            f"PackedTable({self.table!r}, {len(self)} rows of {self.length} tokens, "
            f"{self._digest})"
        )


def pack(table: TokenTable, *, length: int, seed: int) -> PackedTable:
    """Put rows together into rows of at most ``length`` tokens, each exactly once.

    Rows are taken in an order drawn from the seed; each goes where it leaves the least
    room (best fit), whole. This is done once: epochs shuffle the packed rows.

    Args:
      table: whose model fields all have a length axis and share it.
      length: tokens of a packed row.
      seed: of the order.

    Raises:
      InputError: if a row is longer than ``length``, by its example, or if a field has
        no length axis, such as one class a row.

    Source: D. S. Johnson et al., "Worst-case performance bounds for simple
    one-dimensional packing algorithms", 1974.
    """
    if alone := fields_alone(table):
        raise InputError(
            f"rows with the fields {alone}, which have one value a row, cannot be "
            "packed for good; pack_batch packs those of a batch."
        )
    _, lengths = check_packable(table, length=length)
    order = np.random.default_rng(seed).permutation(len(table))
    bins = best_fit(lengths[order].tolist(), capacity=length)
    return PackedTable(table, bins, order, length=length)


def fields_alone(table: Any) -> list[str]:
    """Return the model's fields with one value a row, such as a class."""
    return [name for name in table.model_fields if name not in table.padding]


def check_packable(table: Any, *, length: int) -> tuple[str, np.ndarray]:
    """Return the group of a table's fields and the tokens of each row, int [N].

    Raises:
      InputError: if there are several groups, or a row is longer than ``length``.
    """
    if len(table.lengths) != 1:
        raise InputError(
            f"rows with the groups of lengths {sorted(table.lengths)} cannot be "
            'packed; it takes one group. Set batching to "length" or "pad".'
        )
    ((group, lengths),) = table.lengths.items()
    longest = int(lengths.argmax())
    if lengths[longest] > length:
        raise InputError(
            f"example {table.name_of(longest)} has a row of {lengths[longest]} tokens, "
            f"which cannot be packed into {length}. Cut the rows to {length} tokens "
            "when tokenizing, or pack into longer ones."
        )
    return group, lengths


def pack_batch(
    examples: Sequence[Mapping[str, Any]],
    *,
    num_rows: int,
    length: int,
    padding: Mapping[str, Pad],
) -> dict[str, np.ndarray]:
    """Put the tokens of a batch's examples into few rows, best fit, longest first.

    Args:
      examples: B of them, ``{field: array [n, …] or scalar}``, n at most ``length``; 0
        for what only fills the batch up.
      num_rows: R, at least what `num_rows_of` returns.
      length: L, tokens of a row.
      padding: of the fields of tokens, one group of them.

    Returns:
      Fields of tokens ``[R, L, …]``, ``segment_ids``, the place of a token's example in
      the batch from 1 on, and ``position_ids``, int32 [R, L]; other fields ``[B, …]``,
      and ``first_tokens`` int32 [B], where each example starts among all tokens (0 if
      it has none). There is no ``attention_mask``.

    Example:
      >>> examples = [{"input_ids": np.array(x)} for x in ([7, 8], [9], [5, 6])]
      >>> batch = pack_batch(
      ...     examples, num_rows=2, length=3, padding={"input_ids": Pad(0)}
      ... )
      >>> batch["input_ids"], batch["first_tokens"]
      (array([[7, 8, 0],
             [5, 6, 9]]), array([0, 5, 3], dtype=int32))
    """
    names = [name for name in examples[0] if name in padding and name != REPLACED]
    sizes = np.array([len(example[names[0]]) for example in examples])
    places = _places(sizes, length)
    spans = [slice(p, p + n) for p, n in zip(places, sizes, strict=True)]
    own = {
        "segment_ids": [np.full(n, i, np.int32) for i, n in enumerate(sizes, 1)],
        "position_ids": [np.arange(n, dtype=np.int32) for n in sizes],
    }
    batch = {}
    for name in (*names, *own):
        values = own.get(name) or [example[name] for example in examples]
        first = np.asarray(values[0])
        shape, fill = first.shape[1:], padding[name].value if name in padding else 0
        flat = np.full((num_rows * length, *shape), fill, first.dtype)
        for span, value in zip(spans, values, strict=True):
            flat[span] = value
        batch[name] = flat.reshape(num_rows, length, *shape)
    for name in examples[0]:
        if name not in padding:
            batch[name] = np.stack([example[name] for example in examples])
    return batch | {"first_tokens": places.astype(np.int32)}


def unpack_batch(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Give each example of a batch of `pack_batch` a row of its own again.

    Args:
      batch: of all processes, with ``index``; one without ``first_tokens`` comes back
        as it is. It may have more fields of tokens than it was packed with, such as
        activations.

    Returns:
      Fields of tokens ``[B, L, …]``, zeros where padded to the longest example, with
      ``attention_mask``; the other fields as they are.
    """
    if "first_tokens" not in batch:
        return dict(batch)
    segments = np.asarray(batch["segment_ids"])
    flat, length = segments.ravel(), segments.shape[1]
    first = np.asarray(batch["first_tokens"])[:, None]
    steps = np.arange(length)
    places = np.minimum(first + steps, flat.size - 1)
    real = (first % length + steps < length) & (flat[places] == flat[first])
    real &= np.asarray(batch["index"])[:, None] >= 0
    longest = int(real.sum(axis=1).max())
    places, real = places[:, :longest], real[:, :longest]
    unpacked: dict[str, Any] = {"attention_mask": real.astype(np.int32)}
    for name in [name for name in batch if name not in PACKING]:
        x = np.asarray(batch[name])
        # targets are one an example, even where the classes are as many as the tokens
        if name != "targets" and x.shape[:2] == segments.shape:
            x = x.reshape(flat.size, *x.shape[2:])[places]
            x[~real] = 0
        unpacked[name] = x
    return unpacked


def num_rows_of(sizes: np.ndarray, *, length: int, block_size: int) -> int:
    """Return how many rows of ``length`` each block of examples gets, int [B] of sizes.

    As many as the neediest of the blocks needs when `pack_batch` packs it.

    >>> num_rows_of(np.array([2, 1, 2, 3, 3, 1]), length=3, block_size=3)
    3
    """
    blocks = np.split(sizes, range(block_size, len(sizes), block_size))
    return max(int(_bins(block, length)[1].max()) + 1 for block in blocks)


def _places(sizes: np.ndarray, length: int) -> np.ndarray:
    """Where each of some sizes starts in rows of ``length``, counted over all rows."""
    order, bins = _bins(sizes, length)
    places, used = np.zeros(len(sizes), np.int64), np.zeros(len(sizes), np.int64)
    for number, row in zip(order, bins, strict=True):
        if sizes[number]:
            places[number] = row * length + used[row]
            used[row] += sizes[number]
    return places


def _bins(sizes: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The sizes' numbers, the largest first, and the row of each."""
    order = np.argsort(-sizes, kind="stable")
    return order, best_fit(sizes[order].tolist(), capacity=length)


def best_fit(sizes: Iterable[int], *, capacity: int) -> np.ndarray:
    """Return the bin of each size, int64: the fullest that has room, or a new one.

    >>> best_fit([5, 4, 3, 3, 2], capacity=8).tolist()
    [0, 1, 0, 1, 2]
    """
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0  # bit r is set where a bin has room for r
    num_bins = 0
    chosen = []
    for size in sizes:
        fitting = rooms >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1  # its lowest bit
            number = with_room[room].pop()
            if not with_room[room]:
                rooms ^= 1 << room
        else:
            room, number = capacity, num_bins
            num_bins += 1
        with_room[room - size].append(number)
        rooms |= 1 << (room - size)
        chosen.append(number)
    return np.asarray(chosen)


def _packed_fields(table: TokenTable) -> list[str]:
    return [n for n in table.padding if n not in (*table.host_fields, REPLACED)]
