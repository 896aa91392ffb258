# SPDX-License-Identifier: Apache-2.0
"""The training stream: endless, and any step can start it.

Batch ``i`` is a pure function of (source, seed, batch size, i): not of the number of
workers, of processes or of resumes.
"""

import json
import sys
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jft.data.batches.collate import loss_mask, stack_rows
from jft.data.batches.lengths import Lengths, total_lengths
from jft.data.batches.order import RowOrder, epoch_order
from jft.data.batches.packing import PackedTable
from jft.data.batches.reading import (
    Augment,
    FieldsFn,
    Indexed,
    Share,
    check_fields_fn,
    read_batches,
    share_of,
)
from jft.data.batches.token_batches import TrainBatch, TrainPlan, make_layout
from jft.data.batches.token_table import Readable, TokenTable
from jft.data.sources.source import Example
from jft.types import Batch, InputError


@dataclass(frozen=True, kw_only=True)
class TrainLoader:
    """The endless stream of training batches; made by `make_train_loader`."""

    pipeline: Any  # grain.MapDataset: batch of this process by step
    settings: dict[str, Any]  # what the stream depends on
    steps_per_epoch: float  # rows / global_batch_size, not rounded
    num_workers: int
    plan: TrainPlan | None = None  # of rows of tokens

    @property
    def shapes(self) -> tuple[Lengths, ...]:
        """The lengths that batches of tokens have, ascending; none for images."""
        return self.plan.layout.shapes if self.plan else ()

    def batches(self, start_step: int = 0) -> Generator[Batch, None, None]:
        """Yield the batch of every step from ``start_step`` on, without end.

        Close the generator to stop its threads or worker processes.
        """
        return read_batches(self.pipeline[start_step:], num_workers=self.num_workers)

    def largest(self) -> Batch:
        """A batch of the most tokens that any has; of images, the first."""
        step = 0
        if self.plan is not None:
            steps = range(int(np.ceil(self.steps_per_epoch)))
            sizes = [self.shapes.index(self.plan.shape(step)) for step in steps]
            step = int(np.argmax(sizes))
        return self.pipeline[step]

    def padding(self, num_steps: int | None = None) -> dict[str, Any]:
        """Count the padding of the first steps, without making their batches.

        Args:
          num_steps: None is one epoch.

        Returns:
          ``share``, of padding in all tokens; ``real_tokens`` and ``all_tokens``; and
          ``shapes``, each with its lengths and its number of batches. What is fed to
          an encoder and to a decoder counts alike. Images have no tokens.
        """
        if self.plan is None:
            return {"share": 0.0, "real_tokens": 0, "all_tokens": 0, "shapes": []}
        epoch = int(np.ceil(self.steps_per_epoch))
        return self.plan.padding(epoch if num_steps is None else num_steps)

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
    source: Readable,
    *,
    global_batch_size: int,
    seed: int,
    fields_fn: FieldsFn | None = None,
    augment: Augment | None = None,
    group_by_length: bool = False,
    shapes: Sequence[Mapping[str, int]] | None = None,
    num_workers: int = 0,
    process_index: int | None = None,
    process_count: int | None = None,
) -> TrainLoader:
    """Build the stream of training batches of this process.

    Each epoch visits every example once, in an order drawn anew from the seed; a batch
    may hold the end of one epoch and the start of the next. Process ``p`` of ``P``
    gets the ``p``-th of ``P`` equal blocks of rows of each global batch.

    Args:
      source: examples by position; or rows of tokens, a `TokenTable` or a
        `PackedTable`, which are padded to the first of ``shapes`` that holds all rows
        of the global batch.
      global_batch_size: rows a step, over all processes.
      seed: of order and augmentation, from 0 to 2**32 - 1.
      fields_fn: ``example -> fields``; the example has its position as ``index``.
        Its attribute ``settings``, if it has one, becomes part of the loader's. Not
        for rows of tokens, which are fields already.
      augment: ``(example, generator) -> example``, applied before ``fields_fn``, or to
        each unpadded row of tokens; its draws depend on the seed and the place in the
        stream. It must not write into the arrays that it is given.
      group_by_length: put rows of about one length into a batch; rows of tokens only.
      shapes: ``({group: tokens}, …)``, ascending, as `choose_lengths` gives them, for
        a `TokenTable`; or as `choose_num_rows` does: then the examples of a batch
        share rows, and every batch has examples of all lengths. None is one shape,
        that of the longest row.
      num_workers: processes that prepare batches; 0 uses threads. Each worker is a
        fresh Python, and everything given here must be picklable.
      process_index: of this process; None asks jax.
      process_count: likewise.

    Returns:
      A `TrainLoader`; its batches have the fields and ``loss_mask`` float32 [B], those
      of tokens ``index`` int32 [B] too, the number of the row.

    Raises:
      InputError: if the source is empty, the seed out of range, the batch size does
        not divide over the processes, or an option is not one of such a source.
    """
    share = share_of(
        source, global_batch_size, process_index=process_index, count=process_count
    )
    if not 0 <= seed < 2**32:
        raise InputError(f"the data seed must be from 0 to 2**32 - 1; got {seed}.")
    check_fields_fn(source, fields_fn)
    options: dict[str, Any] = {"seed": seed, "augment": augment, "share": share}
    if isinstance(source, TokenTable | PackedTable):
        stream = _stream_of_tokens(
            source, group_by_length=group_by_length, shapes=shapes, **options
        )
    else:
        _check_examples(group_by_length, shapes)
        assert fields_fn is not None  # as checked
        stream = _stream_of_examples(source, fields_fn, **options)
    settings = {
        **stream.settings,
        "source": repr(source),
        "seed": seed,
        "global_batch_size": global_batch_size,
        **getattr(augment, "settings", {}),
    }
    return TrainLoader(
        pipeline=stream.pipeline,
        settings=json.loads(json.dumps(settings)),  # as a checkpoint gives it back
        steps_per_epoch=len(source) / global_batch_size,
        num_workers=num_workers,
        plan=stream.plan,
    )


class _Stream(NamedTuple):
    pipeline: Any  # a grain.MapDataset of this process's batches
    settings: dict[str, Any]  # of what it is made by
    plan: TrainPlan | None = None  # of the batches of tokens


def _stream_of_tokens(
    table: TokenTable | PackedTable,
    *,
    group_by_length: bool,
    shapes: Sequence[Mapping[str, int]] | None,
    seed: int,
    augment: Augment | None,
    share: Share,
) -> _Stream:
    import grain

    layout = make_layout(table, shapes, share)
    arranged = group_by_length or layout.mixes_lengths
    order = RowOrder(
        len(table),
        seed=seed,
        batch_size=share.global_batch_size,
        lengths=total_lengths(table.lengths) if arranged else None,
        mixed=layout.mixes_lengths,
    )
    plan = TrainPlan(order=order, layout=layout, row_lengths=table.lengths)
    batch_fn = TrainBatch(
        table=table, plan=plan, seed=seed, augment=augment, share=share
    )
    settings = {"group_by_length": group_by_length, "shapes": layout.facts}
    return _Stream(
        grain.MapDataset.range(sys.maxsize).map(batch_fn),
        settings | table.settings,
        plan,
    )


def _stream_of_examples(
    source: Readable,
    fields_fn: FieldsFn,
    *,
    seed: int,
    augment: Augment | None,
    share: Share,
) -> _Stream:
    import grain

    prepare = _Prepare(Indexed(source), seed, fields_fn, augment)
    examples = grain.MapDataset.range(sys.maxsize).seed(seed).random_map(prepare)
    batched = examples.batch(share.block_size, drop_remainder=True, batch_fn=_collate)
    return _Stream(
        batched[share.process_index :: share.process_count],
        dict(getattr(fields_fn, "settings", {})),
    )


@dataclass(frozen=True)
class _Prepare:
    """The fields of one place in the endless stream."""

    source: Indexed
    seed: int
    fields_fn: FieldsFn
    augment: Augment | None

    def __call__(self, place: int, generator: np.random.Generator) -> dict[str, Any]:
        epoch, place_in_epoch = divmod(place, len(self.source))
        order = epoch_order(len(self.source), self.seed, epoch)
        example: Example = self.source[int(order[place_in_epoch])]
        if self.augment is not None:
            example = self.augment(example, generator)
        return self.fields_fn(example)


def _collate(fields: Sequence[dict[str, Any]]) -> Batch:
    return {**stack_rows(fields), "loss_mask": loss_mask(len(fields), len(fields))}


def _check_examples(
    group_by_length: bool, shapes: Sequence[Mapping[str, int]] | None
) -> None:
    if group_by_length or shapes is not None:
        raise InputError(
            f"group_by_length={group_by_length} and shapes={shapes} are options of "
            "rows of tokens; examples have no lengths. Leave them out, or tokenize."
        )
