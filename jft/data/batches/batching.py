# SPDX-License-Identifier: Apache-2.0
"""How rows of different lengths become batches, by name."""

from collections.abc import Mapping
from typing import Any

from jft.data.batches.lengths import choose_lengths
from jft.data.batches.loader import TrainLoader, make_train_loader
from jft.data.batches.packing import pack
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
    **options: Any,
) -> TrainLoader:
    """Build the training stream of a table's rows in one of three ways.

    - ``"pad"``: every batch has the length ``max_lengths``, so one program is compiled.
    - ``"length"``: rows of about one length come together, in batches of at most
      ``num_lengths`` lengths, chosen to leave the least padding.
    - ``"pack"``: rows are put together into rows of ``max_lengths``, once; the batch
      size counts those.

    Args:
      table: the rows.
      batching: one of `BATCHINGS`.
      global_batch_size: rows a step, over all processes.
      seed: of the order, the packing and the augmentation.
      max_lengths: tokens by group; no row is longer.
      num_lengths: for ``"length"``; each costs a compilation.
      **options: further ones of `make_train_loader`.

    Raises:
      InputError: for another batching, a row longer than ``max_lengths``, or a table
        that cannot be packed.
    """
    options |= {"global_batch_size": global_batch_size, "seed": seed}
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
        return make_train_loader(pack(table, length=length, seed=seed), **options)
    raise InputError(f"batching is {batching!r}; expected one of {list(BATCHINGS)}.")
