# SPDX-License-Identifier: Apache-2.0
"""Whole evaluations: every example exactly once."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jft.data.batches.collate import blank_like, loss_mask, stack_rows
from jft.data.batches.order import row_generator
from jft.data.batches.packing import PackedTable
from jft.data.batches.reading import (
    Augment,
    FieldsFn,
    Indexed,
    check_fields_fn,
    read_batches,
    share_of,
)
from jft.data.batches.token_batches import (
    EvalBatch,
    make_eval_plan,
    make_shared_eval_plan,
)
from jft.data.batches.token_table import Readable, TokenTable
from jft.types import Batch


@dataclass(frozen=True, kw_only=True)
class EvalBatches:
    """Every example once; iterate as often as wanted. Made by `make_eval_batches`."""

    num_batches: int
    batch_fn: Callable[[int], Batch]  # of this process, by number

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[Batch]:
        import grain

        return read_batches(grain.MapDataset.range(len(self)).map(self.batch_fn))


def make_eval_batches(
    source: Readable,
    *,
    global_batch_size: int,
    fields_fn: FieldsFn | None = None,
    augment: Augment | None = None,
    num_lengths: int = 4,
    max_lengths: Mapping[str, int] | None = None,
    pack_length: int | None = None,
    rows_multiple: int = 1,
    process_index: int | None = None,
    process_count: int | None = None,
) -> EvalBatches:
    """Build the batches of an evaluation: every real example exactly once.

    Examples come in order; rows of tokens by length, the longest first, and ``index``
    says which is which. The last batch has its full number of rows; those that are
    padding have ``loss_mask`` 0, ``index`` -1 and zeros, or what pads their fields. All
    processes get equally many batches.

    Args:
      source: examples by position; or rows of tokens, a `TokenTable` or `PackedTable`.
      global_batch_size: rows a batch, over all processes.
      fields_fn: ``example -> fields``; the example has its position as ``index``. Not
        for rows of tokens.
      augment: as for `make_train_loader`, for tasks that score random changes; its
        draws depend on the index alone.
      num_lengths: the most lengths that rows of tokens are padded to.
      max_lengths: what no such length exceeds, by group; None is no limit.
      pack_length: let the examples of a batch share rows of at most so many tokens, in
        at most ``num_lengths`` numbers of rows; for a `TokenTable` of examples with one
        answer each. None gives each a row of its own.
      rows_multiple: of the numbers of shared rows: the devices of a process.
      process_index: of this process; None asks jax.
      process_count: likewise.

    Raises:
      InputError: if the source is empty, the batch size does not divide over the
        processes, or an option is not one of such a source.
    """
    share = share_of(
        source, global_batch_size, process_index=process_index, count=process_count
    )
    check_fields_fn(source, fields_fn)
    batch_fn: Callable[[int], Batch]
    if isinstance(source, TokenTable | PackedTable):
        if pack_length is None:
            plan = make_eval_plan(
                source,
                global_batch_size=global_batch_size,
                num_lengths=num_lengths,
                max_lengths=max_lengths,
            )
        else:
            plan = make_shared_eval_plan(
                source,
                share,
                most=pack_length,
                num_shapes=num_lengths,
                multiple=rows_multiple,
            )
        batch_fn = EvalBatch(table=source, plan=plan, augment=augment, share=share)
    else:
        assert fields_fn is not None
        batch_fn = _ExampleBatch(
            source=Indexed(source),
            fields_fn=fields_fn,
            augment=augment,
            batch_size=global_batch_size,
            block=share.block,
        )
    return EvalBatches(
        num_batches=-(-len(source) // global_batch_size), batch_fn=batch_fn
    )


@dataclass(frozen=True, kw_only=True)
class _ExampleBatch:
    """A batch of examples in one process; rows that are left over are blank."""

    source: Indexed
    fields_fn: FieldsFn
    augment: Augment | None
    batch_size: int  # global
    block: slice  # this process's rows of each global batch

    def __call__(self, number: int) -> Batch:
        first = number * self.batch_size
        span = range(first, min(first + self.batch_size, len(self.source)))[self.block]
        fields = [self._fields(i) for i in span]
        missing = self.block.stop - self.block.start - len(fields)
        if missing:
            blank = blank_like(fields[0] if fields else self._fields(0), {})
            if "index" in blank:
                blank["index"] = np.asarray(-1, np.int32)
            fields += [blank] * missing
        return {
            **stack_rows(fields),
            "loss_mask": loss_mask(len(fields) - missing, len(fields)),
        }

    def _fields(self, index: int) -> dict[str, Any]:
        example = self.source[index]
        if self.augment is not None:
            example = dict(self.augment(example, row_generator(0, index)))
        return self.fields_fn(example)
