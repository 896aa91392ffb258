# SPDX-License-Identifier: Apache-2.0
"""What training and evaluation share: how batches are read, and each process's part."""

import os
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from jft.data.batches.packing import PackedTable
from jft.data.batches.token_table import Readable, TokenTable
from jft.data.sources.source import Example
from jft.types import Batch, InputError

FieldsFn = Callable[[Example], dict[str, Any]]
Augment = Callable[[Example, np.random.Generator], Example]

# Each thread prepares a batch. Decoding releases the GIL, small numpy work does not,
# so more threads than cores would only wait for one another.
READ_THREADS = min(8, os.cpu_count() or 1)
READ_AHEAD = 2 * READ_THREADS  # batches


@dataclass(frozen=True)
class Indexed:
    """A source whose examples know their position."""

    source: Readable

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.source[index], "index": index}


class Share(NamedTuple):
    """The part of each global batch that this process makes."""

    block_size: int  # its examples
    process_index: int
    process_count: int

    @property
    def block(self) -> slice:
        """Its examples among those of the global batch."""
        start = self.process_index * self.block_size
        return slice(start, start + self.block_size)

    @property
    def global_batch_size(self) -> int:
        """Examples of all processes."""
        return self.process_count * self.block_size


def share_of(
    source: Readable,
    global_batch_size: int,
    *,
    process_index: int | None,
    count: int | None,
) -> Share:
    """Return the part of this process; None asks jax.

    Raises:
      InputError: if there is no example, or the batch does not divide over processes.
    """
    process_index = jax.process_index() if process_index is None else process_index
    count = jax.process_count() if count is None else count
    if not len(source):
        raise InputError(f"{source!r} holds no example to make batches of.")
    if global_batch_size < 1 or global_batch_size % count:
        raise InputError(
            f"the global batch size {global_batch_size} does not divide over {count} "
            f"processes. Choose a multiple of {count}."
        )
    return Share(global_batch_size // count, process_index, count)


def check_fields_fn(source: Readable, fields_fn: FieldsFn | None) -> None:
    """Refuse rows of tokens with a ``fields_fn``, and examples without one."""
    tokens = isinstance(source, TokenTable | PackedTable)
    if tokens == (fields_fn is not None):
        raise InputError(
            f"{type(source).__name__} with fields_fn={fields_fn!r}: "
            + (
                "rows of tokens are fields already; leave fields_fn out."
                if tokens
                else "examples become fields by fields_fn; give one."
            )
        )


def read_batches(dataset: Any, *, num_workers: int = 0) -> Generator[Batch, None, None]:
    """Yield the elements of a grain.MapDataset, read ahead, in its order."""
    import grain

    options = grain.ReadOptions(
        num_threads=READ_THREADS, prefetch_buffer_size=READ_AHEAD
    )
    stream = dataset.to_iter_dataset(options)
    if num_workers:
        _mark_flags_as_parsed()
        workers = grain.MultiprocessingOptions(num_workers=num_workers)
        stream = stream.mp_prefetch(workers)
    iterator = iter(stream)
    try:
        for batch in iterator:
            # Workers hand over shared memory, which must not outlive them.
            yield jax.tree.map(np.array, batch) if num_workers else batch
    finally:
        iterator.close()


def _mark_flags_as_parsed() -> None:
    """Let grain start workers where absl did not start the program (notebooks)."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
