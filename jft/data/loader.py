# SPDX-License-Identifier: Apache-2.0
"""Batches: an endless training stream that any step can start, and whole evaluations.

Batch ``i`` of the training stream is a pure function of (source, seed, batch size, i):
not of the number of workers, of processes or of resumes.
"""

import os
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from jft.data.sources import Example, Source
from jft.types import Batch, InputError

FieldsFn = Callable[[Example], dict[str, Any]]
Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]

# Each thread prepares a batch. Decoding releases the GIL, small numpy work does not,
# so more threads than cores would only wait for one another.
READ_THREADS = min(8, os.cpu_count() or 1)
READ_AHEAD = 2 * READ_THREADS  # batches


@dataclass(frozen=True, kw_only=True)
class TrainLoader:
    """The endless stream of training batches; made by `make_train_loader`."""

    pipeline: Any  # grain.MapDataset: batch of this process by step
    settings: dict[str, Any]  # what the stream depends on
    steps_per_epoch: float  # examples / global_batch_size, not rounded
    num_workers: int

    def batches(self, start_step: int = 0) -> Generator[Batch, None, None]:
        """Yield the batch of every step from ``start_step`` on, without end.

        Close the generator to stop its threads or worker processes.
        """
        return _read(self.pipeline[start_step:], num_workers=self.num_workers)

    def state(self, next_step: int) -> dict[str, Any]:
        """Return what a checkpoint keeps: JSON, and the same in every process."""
        return {"next_step": next_step, "settings": dict(self.settings)}

    def check_state(self, state: dict[str, Any]) -> int:
        """Return the step to resume at.

        Raises:
          InputError: if the state was written by a loader with another stream.
        """
        given = state["settings"]
        if given != self.settings:
            names = sorted(
                name
                for name in {*given, *self.settings}
                if given.get(name) != self.settings.get(name)
            )
            raise InputError(
                f"the checkpoint was trained on another stream of examples: {names} "
                f"were {[given.get(name) for name in names]} and are now "
                f"{[self.settings.get(name) for name in names]}. Resume with the same "
                "data, seed and batch size, or start a new workdir."
            )
        return int(state["next_step"])


def make_train_loader(
    source: Source,
    *,
    global_batch_size: int,
    seed: int,
    fields_fn: FieldsFn,
    augment: Augment | None = None,
    num_workers: int = 0,
    process_index: int | None = None,
    process_count: int | None = None,
) -> TrainLoader:
    """Build the stream of training batches of this process.

    Each epoch visits every example once, in an order drawn anew from the seed; a batch
    may hold the end of one epoch and the start of the next. Process ``p`` of ``P``
    gets the ``p``-th of ``P`` equal blocks of rows of each global batch.

    Args:
      source: examples by position.
      global_batch_size: examples a step, over all processes.
      seed: of order and augmentation, from 0 to 2**32 - 1.
      fields_fn: ``example -> fields``; the example has its position as ``index``.
        Its attribute ``settings``, if it has one, becomes part of the loader's.
      augment: ``(image, generator) -> image``, applied to ``image`` before
        ``fields_fn``; its draws depend on the seed and the place in the stream.
      num_workers: processes that prepare batches; 0 uses threads. Each worker is a
        fresh Python, and everything given here must be picklable.
      process_index: of this process; None asks jax.
      process_count: likewise.

    Returns:
      A `TrainLoader`; its batches have the fields and ``loss_mask`` float32 [B].

    Raises:
      InputError: if the source is empty, the seed out of range, or the batch size
        does not divide over the processes.
    """
    import grain

    rows, process, count = _shard(
        source, global_batch_size, process_index=process_index, count=process_count
    )
    if not 0 <= seed < 2**32:
        raise InputError(f"the data seed must be from 0 to 2**32 - 1; got {seed}.")
    pipeline = (
        grain.MapDataset.range(sys.maxsize)
        .seed(seed)
        .random_map(_Prepare(_Indexed(source), seed, fields_fn, augment))
        .batch(rows, drop_remainder=True, batch_fn=_collate)
    )
    return TrainLoader(
        pipeline=pipeline[process::count],
        settings={
            "source": repr(source),
            "seed": seed,
            "global_batch_size": global_batch_size,
            **getattr(fields_fn, "settings", {}),
        },
        steps_per_epoch=len(source) / global_batch_size,
        num_workers=num_workers,
    )


@dataclass(frozen=True, kw_only=True)
class EvalBatches:
    """Every example once, in order; iterate as often as wanted."""

    source: Source
    fields_fn: FieldsFn
    rows: int  # of a batch, in this process
    process_index: int
    process_count: int

    def __len__(self) -> int:
        return -(-len(self.source) // (self.rows * self.process_count))

    def __iter__(self) -> Iterator[Batch]:
        import grain

        return _read(grain.MapDataset.range(len(self)).map(self._batch))

    def _batch(self, number: int) -> Batch:
        start = (number * self.process_count + self.process_index) * self.rows
        stop = min(start + self.rows, len(self.source))
        source = _Indexed(self.source)
        fields = [self.fields_fn(source[i]) for i in range(start, stop)]
        if len(fields) == self.rows:
            return _collate(fields)
        blank = _blank(fields[0] if fields else self.fields_fn(source[0]))
        return _collate([*fields, *[blank] * (self.rows - len(fields))], len(fields))


def make_eval_batches(
    source: Source,
    *,
    global_batch_size: int,
    fields_fn: FieldsFn,
    process_index: int | None = None,
    process_count: int | None = None,
) -> EvalBatches:
    """Build the batches of an evaluation: every real example exactly once.

    The last batch has its full shape; rows that are padding have ``loss_mask`` 0,
    ``index`` -1 and zeros. All processes get equally many batches.

    Args:
      source: examples by position.
      global_batch_size: rows a batch, over all processes.
      fields_fn: ``example -> fields``; the example has its position as ``index``.
      process_index: of this process; None asks jax.
      process_count: likewise.

    Raises:
      InputError: if the source is empty or the batch size does not divide over the
        processes.
    """
    rows, process, count = _shard(
        source, global_batch_size, process_index=process_index, count=process_count
    )
    return EvalBatches(
        source=source,
        fields_fn=fields_fn,
        rows=rows,
        process_index=process,
        process_count=count,
    )


@dataclass(frozen=True)
class _Indexed:
    """A source whose examples know their position."""

    source: Source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.source[index], "index": index}


@dataclass(frozen=True)
class _Prepare:
    """The fields of one place in the endless stream."""

    source: _Indexed
    seed: int
    fields_fn: FieldsFn
    augment: Augment | None

    def __call__(self, place: int, generator: np.random.Generator) -> dict[str, Any]:
        epoch, place_in_epoch = divmod(place, len(self.source))
        order = _epoch_order(len(self.source), self.seed, epoch)
        example = self.source[int(order[place_in_epoch])]
        if self.augment is not None:
            image = self.augment(example["image"], generator)
            example = {**example, "image": image}
        return self.fields_fn(example)


@lru_cache(maxsize=4)
def _epoch_order(num_examples: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation; grain's own shuffle takes 0.25 ms an example of a small source."""
    return np.random.default_rng((seed, epoch)).permutation(num_examples)


def _collate(fields: Sequence[dict[str, Any]], num_real: int | None = None) -> Batch:
    """Stack fields to a batch whose first ``num_real`` rows are real."""
    shapes = {name: {np.shape(row[name]) for row in fields} for name in fields[0]}
    uneven = {name: sorted(found) for name, found in shapes.items() if len(found) > 1}
    if uneven:
        raise InputError(
            f"examples of different shapes cannot form a batch: {uneven}. Resize or "
            "pad them to one shape in fields_fn."
        )
    batch = {name: np.stack([row[name] for row in fields]) for name in fields[0]}
    real = len(fields) if num_real is None else num_real
    return {**batch, "loss_mask": (np.arange(len(fields)) < real).astype(np.float32)}


def _blank(fields: dict[str, Any]) -> dict[str, Any]:
    blank = {name: np.zeros_like(value) for name, value in fields.items()}
    return {**blank, "index": np.asarray(-1, np.int32)} if "index" in blank else blank


def _shard(
    source: Source,
    global_batch_size: int,
    *,
    process_index: int | None,
    count: int | None,
) -> tuple[int, int, int]:
    """Return rows a process, this process, and the number of processes."""
    process_index = jax.process_index() if process_index is None else process_index
    count = jax.process_count() if count is None else count
    if not len(source):
        raise InputError(f"{source!r} holds no example to make batches of.")
    if global_batch_size < 1 or global_batch_size % count:
        raise InputError(
            f"the global batch size {global_batch_size} does not divide over {count} "
            f"processes. Choose a multiple of {count}."
        )
    return global_batch_size // count, process_index, count


def _read(dataset: Any, *, num_workers: int = 0) -> Generator[Batch, None, None]:
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
