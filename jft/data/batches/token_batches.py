# SPDX-License-Identifier: Apache-2.0
"""Batches of rows of tokens: which rows, how long, read, changed and padded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jft.data.batches.collate import blank_like
from jft.data.batches.layouts import (
    ROWS,
    Layout,
    PaddedRows,
    Table,
    choose_num_rows,
    count_padding,
    make_shared_rows,
)
from jft.data.batches.lengths import (
    Lengths,
    check_shapes,
    fit_lengths,
    total_lengths,
)
from jft.data.batches.order import RowOrder, row_generator
from jft.data.batches.packing import PackedTable
from jft.data.batches.reading import Augment, Share
from jft.types import Batch, InputError


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainPlan:
    """Which rows each global batch has, and how they lie in it."""

    order: RowOrder
    layout: Layout
    row_lengths: Mapping[str, np.ndarray]  # by group, int [N]

    def shape(self, step: int) -> Lengths:
        """Return the shape of a step's batch."""
        return self.layout.shape_of(self.order.rows(step))

    def padding(self, num_steps: int) -> dict[str, Any]:
        """Count the tokens of the first steps; see `TrainLoader.padding`."""
        batches = [self.order.rows(step) for step in range(num_steps)]
        return count_padding(self.layout, batches, self.row_lengths)


@dataclass(frozen=True, kw_only=True)
class TrainBatch:
    """The batch of a step in one process."""

    table: Table
    plan: TrainPlan
    seed: int
    augment: Augment | None
    share: Share

    def __call__(self, step: int) -> Batch:
        """Make it."""
        rows = self.plan.order.rows(step)
        mine = rows[self.share.block]
        first = step * len(rows) + self.share.block.start
        fields = [
            read_row(self.table, int(row), self.augment, self.seed, first + i)
            for i, row in enumerate(mine)
        ]
        layout = self.plan.layout
        return layout.collate(fields, mine, layout.shape_of(rows))


@dataclass(frozen=True, kw_only=True, eq=False)
class EvalPlan:
    """Every row once, and how each global batch lies."""

    batches: tuple[np.ndarray, ...]  # rows of each global batch, int [B] or fewer
    layout: Layout


def make_eval_plan(
    table: Table,
    *,
    global_batch_size: int,
    num_lengths: int,
    max_lengths: Mapping[str, int] | None,
) -> EvalPlan:
    """Sort by length, and choose the lengths with the least padding.

    The longest rows come first: what does not fit memory fails at once.
    """
    row_lengths = table.lengths
    order = np.argsort(-total_lengths(row_lengths), kind="stable")
    starts = np.arange(0, len(order), global_batch_size)
    maxima = {
        group: np.maximum.reduceat(of_rows[order], starts)
        for group, of_rows in row_lengths.items()
    }
    shapes = fit_lengths(maxima, num_lengths=num_lengths, max_lengths=max_lengths)
    layout = PaddedRows(table=table, row_lengths=row_lengths, shapes=shapes)
    return EvalPlan(batches=tuple(np.split(order, starts[1:])), layout=layout)


@dataclass(frozen=True, kw_only=True)
class EvalBatch:
    """A batch of an evaluation in one process; rows that are left over are blank."""

    table: Table
    plan: EvalPlan
    augment: Augment | None
    share: Share

    def __call__(self, number: int) -> Batch:
        """Make it."""
        rows = self.plan.batches[number]
        index = rows[self.share.block]
        fields = [read_row(self.table, int(i), self.augment, 0, int(i)) for i in index]
        missing = self.share.block_size - len(index)
        if missing:
            real = fields[0] if fields else read_row(self.table, 0, self.augment, 0, 0)
            fields += [blank_like(real, self.table.padding)] * missing
            index = np.pad(index, (0, missing), constant_values=-1)
        layout = self.plan.layout
        return layout.collate(fields, index, layout.shape_of(rows))


def read_row(
    table: Table, index: int, augment: Augment | None, seed: int, place: int
) -> dict[str, Any]:
    """Return a row's fields for the model, changed with the draws of a place."""
    if augment is None:
        return table.read(index)
    generator = row_generator(seed, place)
    return table.read(index, lambda row: augment(row, generator))


def make_shared_eval_plan(
    table: Table, share: Share, *, most: int, num_shapes: int, multiple: int
) -> EvalPlan:
    """Give each batch rows of all lengths, so that all take about as much room."""
    ascending = np.argsort(total_lengths(table.lengths), kind="stable")
    count = -(-len(table) // share.global_batch_size)
    generator = np.random.default_rng(0)  # no process has the longest rows of all
    batches = [generator.permutation(ascending[i::count]) for i in range(count)]
    shapes = choose_num_rows(
        table,
        batches,
        most=most,
        block_size=share.block_size,
        num_shapes=num_shapes,
        multiple=multiple,
    )
    layout = make_shared_rows(table, shapes, share)
    return EvalPlan(batches=tuple(batches), layout=layout)


def make_layout(
    table: Table, shapes: Sequence[Mapping[str, int]] | None, share: Share
) -> Layout:
    """Lay rows out in the shapes given, checked; None: the one that holds every row."""
    if shapes is not None and any(ROWS in shape for shape in shapes):
        return make_shared_rows(table, shapes, share)
    return PaddedRows(
        table=table,
        row_lengths=table.lengths,
        shapes=padded_shapes(table, shapes),
    )


def padded_shapes(
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
