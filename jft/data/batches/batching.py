# SPDX-License-Identifier: Apache-2.0
"""How rows of different lengths become batches, by name."""

from collections.abc import Mapping
from typing import Any

from jft.data.batches.layouts import choose_num_rows
from jft.data.batches.lengths import choose_lengths, sample_batches, total_lengths
from jft.data.batches.loader import TrainLoader, make_train_loader
from jft.data.batches.order import RowOrder
from jft.data.batches.packing import fields_alone, pack
from jft.data.batches.reading import share_of
from jft.data.batches.token_table import TokenTable
from jft.types import InputError

BATCHINGS = ("pad", "length", "pack")


def make_token_loader(
    table: TokenTable,
    *,
    batching: str,
    global_batch_size: int,
    seed: int,
    max_lengths: Mapping[str, int],
    num_lengths: int = 4,
    rows_multiple: int = 1,
    process_index: int | None = None,
    process_count: int | None = None,
    **options: Any,
) -> TrainLoader:
    """Build the training stream of a table's rows in one of three ways.

    - ``"pad"``: every batch has the length ``max_lengths``, so one program is compiled.
    - ``"length"``: rows of about one length come together, in batches of at most
      ``num_lengths`` lengths, chosen to leave the least padding.
    - ``"pack"``: rows share rows of ``max_lengths``. With a value a token in every
      field they are put together once, and the batch size counts packed rows; examples
      with one answer each share the rows of their batch, which has examples of all
      lengths, so that it takes one of at most ``num_lengths`` numbers of rows.

    Args:
      table: the rows.
      batching: one of `BATCHINGS`.
      global_batch_size: rows a step, over all processes.
      seed: of the order, the packing and the augmentation.
      max_lengths: tokens by group; no row is longer.
      num_lengths: shapes of batches to choose; each costs a compilation.
      rows_multiple: of the rows that a batch's examples share: the devices of a
        process.
      process_index: of this process; None asks jax.
      process_count: likewise.
      **options: further ones of `make_train_loader`.

    Raises:
      InputError: for another batching, a row longer than ``max_lengths``, or a table
        that cannot be packed.
    """
    options |= {
        "global_batch_size": global_batch_size,
        "seed": seed,
        "process_index": process_index,
        "process_count": process_count,
    }
    if batching == "pad":
        shape = {group: max_lengths[group] for group in table.lengths}
        return make_train_loader(table, shapes=[shape], **options)
    if batching == "length":
        shapes = choose_lengths(
            table.lengths,
            global_batch_size=global_batch_size,
            num_lengths=num_lengths,
            max_lengths=max_lengths,
        )
        return make_train_loader(table, group_by_length=True, shapes=shapes, **options)
    if batching == "pack":
        length = max_lengths[next(iter(table.lengths))]
        if not fields_alone(table):
            return make_train_loader(pack(table, length=length, seed=seed), **options)
        order = RowOrder(
            len(table),
            seed=0,
            batch_size=global_batch_size,
            lengths=total_lengths(table.lengths),
            mixed=True,
        )
        share = share_of(
            table, global_batch_size, process_index=process_index, count=process_count
        )
        shapes = choose_num_rows(
            table,
            sample_batches(order),
            most=length,
            block_size=share.block_size,
            num_shapes=num_lengths,
            multiple=rows_multiple,
        )
        return make_train_loader(table, shapes=shapes, **options)
    raise InputError(f"batching is {batching!r}; expected one of {list(BATCHINGS)}.")
