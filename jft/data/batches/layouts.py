# SPDX-License-Identifier: Apache-2.0
"""How rows of a table lie in a batch: each padded, or several in a shared row.

Both layouts make arrays of a few ``shapes``, ascending, the last of which holds any
batch. ``mixes_lengths`` says whether they are good where every batch has rows of all
lengths.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jft.data.batches.collate import loss_mask, pad_rows
from jft.data.batches.lengths import (
    Lengths,
    first_holding,
    fit_lengths,
    total_lengths,
)
from jft.data.batches.packing import (
    PackedTable,
    check_packable,
    num_rows_of,
    pack_batch,
)
from jft.data.batches.reading import Share
from jft.data.batches.token_table import TokenTable
from jft.types import Batch, InputError

Table = TokenTable | PackedTable
ROWS = "rows"  # in a shape: how many the examples of a process share


@dataclass(frozen=True, kw_only=True, eq=False)
class PaddedRows:
    """Each row of the table alone, up to the length of the batch."""

    table: Table
    row_lengths: Mapping[str, np.ndarray]  # by group, int [N]
    shapes: tuple[Lengths, ...]
    mixes_lengths = False

    @property
    def facts(self) -> tuple[Lengths, ...]:
        """What a checkpoint's stream must have too."""
        return self.shapes

    def shape_of(self, rows: np.ndarray) -> Lengths:
        """Return the first of the shapes that is as long as every row."""
        longest = {g: int(x[rows].max()) for g, x in self.row_lengths.items()}
        return first_holding(self.shapes, longest)

    def num_tokens(self, shape: Lengths, num_rows: int) -> int:
        """Count the tokens of a global batch of that shape, padding included."""
        return num_rows * sum(shape.values())

    def collate(
        self, fields: Sequence[dict[str, Any]], index: np.ndarray, shape: Lengths
    ) -> Batch:
        """Make the batch of a process: fields of tokens are ``[B, L, …]``.

        Args:
          fields: of each row of the table, unpadded.
          index: the rows' numbers, int [B]; those of -1 come last and are blank.
          shape: of the arrays.
        """
        table = self.table
        padded = pad_rows(
            fields, shape, padding=table.padding, padding_side=table.padding_side
        )
        return {**padded, **_about(index)}


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedRows:
    """The rows of the table several in one, packed anew in each batch.

    For examples with one answer each, which stay together in their batch.
    """

    table: Table
    sizes: np.ndarray  # tokens of each row of the table, int [N]
    group: str  # of the fields of tokens
    shapes: tuple[Lengths, ...]  # {group: tokens of a row, ROWS: rows of a process}
    share: Share
    mixes_lengths = True

    @property
    def facts(self) -> tuple[Lengths, ...]:
        """What a checkpoint's stream must have too; rows depend on the processes."""
        return ({self.group: self.shapes[0][self.group], ROWS: 0},)

    def shape_of(self, rows: np.ndarray) -> Lengths:
        """Return the first of the shapes with enough rows for every process."""
        sizes, length = self.sizes[rows], self.shapes[0][self.group]
        needed = num_rows_of(sizes, length=length, block_size=self.share.block_size)
        return first_holding(self.shapes, {ROWS: needed})

    def num_tokens(self, shape: Lengths, num_rows: int) -> int:
        """Count the tokens of a global batch of that shape, padding included."""
        del num_rows  # of the table, not of tokens
        return self.share.process_count * shape[ROWS] * shape[self.group]

    def collate(
        self, fields: Sequence[dict[str, Any]], index: np.ndarray, shape: Lengths
    ) -> Batch:
        """Make the batch of a process, as `pack_batch` does; see `PaddedRows`."""
        packed = pack_batch(
            fields,
            num_rows=shape[ROWS],
            length=shape[self.group],
            padding=self.table.padding,
        )
        return {**packed, **_about(index)}


Layout = PaddedRows | SharedRows


def _about(index: np.ndarray) -> Batch:
    mask = loss_mask(int((index >= 0).sum()), len(index))
    return {"index": index.astype(np.int32), "loss_mask": mask}


def make_shared_rows(
    table: Table, shapes: Sequence[Mapping[str, int]], share: Share
) -> SharedRows:
    """Lay the examples of a table out in shapes as `choose_num_rows` gives them.

    Where a batch of the longest examples would fit none of them, the shape that it
    needs is added: it may never come, and its program is compiled only when it does.

    Raises:
      InputError: if the table's rows cannot be packed, or the shapes are no such.
    """
    plain = [dict(shape) for shape in shapes]
    last = plain[-1]
    rows = [shape.get(ROWS, 0) for shape in plain]
    lengths = [{**shape, ROWS: 0} for shape in plain]
    if sorted(set(rows)) != rows or any(x != lengths[0] for x in lengths):
        raise InputError(
            f"the shapes {plain} must have rows of one length, and ascend in their "
            "number of rows; choose_num_rows gives such."
        )
    length = next(tokens for name, tokens in last.items() if name != ROWS)
    group, sizes = check_packable(table, length=length)
    longest = np.sort(sizes)[-share.block_size :]
    most = num_rows_of(longest, length=length, block_size=share.block_size)
    if most > last[ROWS]:
        multiple = int(np.gcd.reduce([shape[ROWS] for shape in plain]))
        plain.append({**last, ROWS: -(-most // multiple) * multiple})
    return SharedRows(
        table=table, sizes=sizes, group=group, shapes=tuple(plain), share=share
    )


def choose_num_rows(
    table: Table,
    batches: Sequence[np.ndarray],
    *,
    most: int,
    block_size: int,
    num_shapes: int,
    multiple: int = 1,
) -> tuple[Lengths, ...]:
    """Choose the numbers of shared rows that give the least padding to some batches.

    Args:
      table: of examples with one group of lengths.
      batches: rows of the table in global batches, each int [B].
      most: tokens that a shared row has at most; it has what the longest example
        needs, rounded up to a multiple of 8.
      block_size: examples of a process.
      num_shapes: the most to choose, at least 1; each costs a compilation.
      multiple: numbers are rounded up to one of it: the devices of a process.

    Returns:
      ``({group: tokens of a row, ROWS: rows of a process}, …)``, ascending.

    Raises:
      InputError: if the table's rows cannot be packed, or ``num_shapes`` is below 1.
    """
    group, sizes = check_packable(table, length=most)
    length = min(most, -(-int(sizes.max()) // 8) * 8)
    needed = [
        num_rows_of(sizes[rows], length=length, block_size=block_size)
        for rows in batches
    ]
    fitted = fit_lengths(
        {ROWS: np.array(needed)}, num_lengths=num_shapes, multiple=multiple
    )
    return tuple({group: length, **shape} for shape in fitted)


def count_padding(
    layout: Layout, batches: Sequence[np.ndarray], row_lengths: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Count the tokens of global batches; see `TrainLoader.padding`."""
    per_row = total_lengths(row_lengths)
    shapes = [layout.shape_of(rows) for rows in batches]
    real = sum(int(per_row[rows].sum()) for rows in batches)
    total = sum(
        layout.num_tokens(shape, len(rows))
        for shape, rows in zip(shapes, batches, strict=True)
    )
    return {
        "share": 1 - real / total if total else 0.0,
        "real_tokens": real,
        "all_tokens": total,
        "shapes": [
            {"lengths": dict(shape), "batches": shapes.count(shape)}
            for shape in layout.shapes
        ],
    }
