# SPDX-License-Identifier: Apache-2.0
"""Batches of rows of tokens: which rows, how long, read, changed and padded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jft.data.batches.collate import blank_like, loss_mask, pad_rows
from jft.data.batches.lengths import (
    Lengths,
    check_shapes,
    first_holding,
    fit_lengths,
    total_lengths,
)
from jft.data.batches.order import RowOrder, row_generator
from jft.data.batches.packing import PackedTable
from jft.data.batches.reading import Augment
from jft.data.batches.token_table import TokenTable
from jft.types import Batch, InputError

Table = TokenTable | PackedTable


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainPlan:
    """Which rows each global batch has, and the lengths that it is padded to."""

    order: RowOrder
    row_lengths: Mapping[str, np.ndarray]  # by group, int [N]
    shapes: tuple[Lengths, ...]  # ascending, the last holds every row

    def lengths(self, rows: np.ndarray) -> Lengths:
        """Return the first of the shapes that holds all of a global batch's rows."""
        longest = {g: int(x[rows].max()) for g, x in self.row_lengths.items()}
        return first_holding(self.shapes, longest)

    def padding(self, num_steps: int) -> dict[str, Any]:
        """Count the tokens of the first steps; see `TrainLoader.padding`."""
        per_row = total_lengths(self.row_lengths)
        batches = [0] * len(self.shapes)
        real, total = 0, 0
        for step in range(num_steps):
            rows = self.order.rows(step)
            shape = self.lengths(rows)
            batches[self.shapes.index(shape)] += 1
            real += int(per_row[rows].sum())
            total += len(rows) * sum(shape.values())
        counted = zip(self.shapes, batches, strict=True)
        return {
            "share": 1 - real / total if total else 0.0,
            "real_tokens": real,
            "all_tokens": total,
            "shapes": [{"lengths": dict(s), "batches": n} for s, n in counted],
        }


@dataclass(frozen=True, kw_only=True)
class TrainBatch:
    """The batch of a step in one process."""

    table: Table
    plan: TrainPlan
    seed: int
    augment: Augment | None
    block: slice  # this process's rows of each global batch

    def __call__(self, step: int) -> Batch:
        """Make it."""
        rows = self.plan.order.rows(step)
        mine = rows[self.block]
        first = step * len(rows) + self.block.start
        fields = [
            read_row(self.table, int(row), self.augment, self.seed, first + i)
            for i, row in enumerate(mine)
        ]
        return _pad(self.table, fields, mine, self.plan.lengths(rows))


@dataclass(frozen=True, kw_only=True, eq=False)
class EvalPlan:
    """Every row once, the longest first: what does not fit memory fails at once."""

    order: np.ndarray  # rows, int [N]
    lengths: tuple[Lengths, ...]  # of each global batch
    batch_size: int  # global


def make_eval_plan(
    table: Table,
    *,
    global_batch_size: int,
    num_lengths: int,
    max_lengths: Mapping[str, int] | None,
) -> EvalPlan:
    """Sort by length, and choose the lengths with the least padding."""
    order = np.argsort(-total_lengths(table.lengths), kind="stable")
    starts = np.arange(0, len(order), global_batch_size)
    maxima = {
        group: np.maximum.reduceat(of_rows[order], starts)
        for group, of_rows in table.lengths.items()
    }
    shapes = fit_lengths(maxima, num_lengths=num_lengths, max_lengths=max_lengths)
    lengths = [
        first_holding(shapes, {group: int(x[i]) for group, x in maxima.items()})
        for i in range(len(starts))
    ]
    return EvalPlan(order=order, lengths=tuple(lengths), batch_size=global_batch_size)


@dataclass(frozen=True, kw_only=True)
class EvalBatch:
    """A batch of an evaluation in one process; rows that are left over are blank."""

    table: Table
    plan: EvalPlan
    augment: Augment | None
    block: slice  # this process's rows of each global batch

    def __call__(self, number: int) -> Batch:
        """Make it."""
        start = number * self.plan.batch_size
        index = self.plan.order[start : start + self.plan.batch_size][self.block]
        fields = [read_row(self.table, int(i), self.augment, 0, int(i)) for i in index]
        missing = self.block.stop - self.block.start - len(index)
        if missing:
            real = fields[0] if fields else read_row(self.table, 0, self.augment, 0, 0)
            fields += [blank_like(real, self.table.padding)] * missing
            index = np.pad(index, (0, missing), constant_values=-1)
        return _pad(self.table, fields, index, self.plan.lengths[number])


def read_row(
    table: Table, index: int, augment: Augment | None, seed: int, place: int
) -> dict[str, Any]:
    """Return a row's fields for the model, changed with the draws of a place."""
    if augment is None:
        return table.read(index)
    generator = row_generator(seed, place)
    return table.read(index, lambda row: augment(row, generator))


def table_shapes(
    table: Table, shapes: Sequence[Mapping[str, int]] | None
) -> tuple[Lengths, ...]:
    """Return the shapes given, checked, or the one that just holds every row."""
    if isinstance(table, PackedTable):
        if shapes is not None:
            raise InputError(
                f"shapes {list(shapes)} were given for packed rows, whose length is "
                f"{table.length}; leave shapes at None."
            )
        return (dict.fromkeys(table.lengths, table.length),)
    if shapes is None:
        return ({group: int(x.max()) for group, x in table.lengths.items()},)
    return check_shapes(shapes, table.lengths)


def _pad(
    table: Table, rows: Sequence[dict[str, Any]], index: np.ndarray, lengths: Lengths
) -> Batch:
    """Pad rows to a batch; those whose index is -1 come last and are blank."""
    padded = pad_rows(
        rows, lengths, padding=table.padding, padding_side=table.padding_side
    )
    mask = loss_mask(int((index >= 0).sum()), len(index))
    return {**padded, "index": index.astype(np.int32), "loss_mask": mask}
