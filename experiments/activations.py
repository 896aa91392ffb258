# SPDX-License-Identifier: Apache-2.0
"""What each phase reads: all of a batch, or what frozen layers said, which run once."""

import bisect
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from experiments import build, feed, forward, two_heads
from experiments.devices import compute_dtype, make_place
from experiments.plan import moving_layers
from jft import data, processes, train
from jft.config import Config
from jft.types import Batch, InputError

MIN_EVALUATIONS = 3  # in a phase, for a program of their own to be worth compiling
EMBEDDED = ("pixel_values",)  # fields that only the embeddings read


class Activations:
    """The cache of a run: decides at each phase, and switches the stream.

    Args:
      job: the run.
      stream: its batches, with what the old head is asked; switched to those that
        start at the boundary, or of the task alone while it is not asked.
      place: puts a batch of the task alone on the devices, with what a step reads.
      folder: of the files.
      stop_requested: polled while they are computed.

    Raises:
      InputError: if ``train.cache.use`` is "on" where that is not possible.
    """

    def __init__(
        self,
        job: build.Job,
        stream: feed.Stream,
        *,
        place: Callable[[Batch], Batch],
        folder: Path,
        stop_requested: Callable[[], bool],
    ) -> None:
        self._job = job
        self._stream = stream
        self._place = place
        # what the stream has now: a boundary, and whether the old head is asked
        self._read = (0, job.asks(None))
        self._cache: train.ActivationCache | None = None
        self._most = 0  # boundaries that there is room for
        self._uses: list[tuple[int, int]] = []  # of each phase: first step, boundary
        self.why_not = why_not(job)
        settings = job.config.train.cache
        if settings.use == "on" and self.why_not is not None:
            raise InputError(
                f'train.cache.use is "on", but activations cannot be kept: '
                f'{self.why_not}. Set it to "auto" or "off".'
            )
        if self.why_not is None:
            self._cache = train.ActivationCache(
                job.model.prefix_fn,
                {name: rows_of(job, name) for name in self._kept_splits()},
                folder=folder,
                layer_index=job.model.layer_index,
                dtype=jnp.dtype(settings.dtype),
                compute_dtype=compute_dtype(job.config),
                facts=repr((job.model.module, job.loader.settings)),
                stop_requested=stop_requested,
            )
            needed = self._cache.bytes_per_boundary(job.model.params)
            self._most = _most_boundaries(job.config, folder, needed)

    def start_phase(
        self, step: int, groups: train.OpenGroups, state: train.TrainState
    ) -> bool:
        """Compute what this phase and the next ones read; whether batches change."""
        boundary, kept = 0, None
        if self._cache is not None:
            self._keep(step, groups, state)
            boundary, kept = self._cache.boundary("train"), self._cache.table("train")
            self._uses.append((step, boundary))
        job, before = self._job, self._read
        self._read = (boundary, job.asks(groups))
        if self._read == before:
            return False
        if job.asks(groups):
            self._stream.switch_back()
            return True
        loader = job.task_loader
        if kept is not None:  # in the order of the run's own loader
            loader = feed.make_train_loader(job.config, kept, job.model)
        self._stream.switch(loader, self._place)
        return True

    def _keep(
        self, step: int, groups: train.OpenGroups, state: train.TrainState
    ) -> None:
        """Compute what this phase and the next ones read."""
        assert self._cache is not None
        boundaries, num_steps = self._plan(step, groups)
        often = num_steps >= MIN_EVALUATIONS * self._job.plan.eval_every
        of_splits = {"train": boundaries, "validation": boundaries[-1:] * often}
        self._cache.keep(
            state.params, {split: of_splits[split] for split in self._kept_splits()}
        )

    def table(self, split: str) -> data.TokenTable | None:
        """What to read instead of the rows of a split, in this phase."""
        if self._cache is None or split not in self._kept_splits():
            return None
        return self._cache.table(split)

    def close(self) -> None:
        """Remove the files, when the run is over."""
        if self._cache is not None:
            self._cache.close()

    def report(self, num_steps: int) -> dict[str, Any]:
        """What was kept and what that saved, for the summary."""
        if self._cache is None:
            return {"use": "off", "why": self.why_not}
        cache, size = self._cache, self._job.config.data.global_batch_size
        stops = [step for step, _ in self._uses[1:]] + [num_steps]
        rows = [
            (size * (stop - step), boundary)
            for (step, boundary), stop in zip(self._uses, stops, strict=True)
        ]
        # where all was found in files, nothing says how long computing would take
        seconds = cache.seconds - cache.compile_seconds
        a_layer = seconds / cache.layers_run if cache.layers_run else 0.0
        saved = sum(n * boundary for n, boundary in rows) * a_layer - cache.seconds
        read = sum(n for n, boundary in rows if boundary)
        return {
            "use": "on" if read else "off",
            "why": None if read else "it would save no work, or there is no room",
            "rows_read": read,
            "rows_computed": cache.num_computed,
            "rows_found": cache.num_found,
            "bytes": cache.most_bytes,
            "seconds": round(cache.seconds, 3),
            "seconds_saved": round(saved, 3) if a_layer else None,
        }

    def _kept_splits(self) -> tuple[str, ...]:
        """Splits that are read in every epoch by the parameters that are trained."""
        optim = self._job.config.optim
        averaged = optim.ema_decay is not None or optim.swa_start is not None
        return ("train",) if averaged else ("train", "validation")

    def _lowest(self, groups: Collection[Any]) -> int:
        """The boundary below the open layers; 0 where that saves too little.

        Embedding a text is a look-up, which is sooner done than read from a file. The
        old head, where it is asked, reads whole examples.
        """
        if self._job.asks(frozenset(groups)):
            return 0
        lowest: int = min(groups)
        return 0 if lowest == 1 and self._job.task.reads == "text" else lowest

    def _plan(self, step: int, groups: train.OpenGroups) -> tuple[tuple[int, ...], int]:
        """What the phase of a step keeps, resumed or not, and how many steps it has."""
        job, epoch = self._job, self._job.loader.steps_per_epoch
        if job.plan.phases and groups is not None:
            lengths = [phase.stop - phase.start for phase in job.plan.phases]
            stretches = [
                train.Stretch(self._lowest(phase.trainable), length / epoch)
                for phase, length in zip(job.plan.phases, lengths, strict=True)
            ]
            planned = train.plan_boundaries(stretches, most=self._most)
            stops = [phase.stop for phase in job.plan.phases]
            number = bisect.bisect_right(stops, step)
            return planned[number], lengths[number]
        moving = moving_layers(job.model, job.labels) if groups is None else groups
        whole_run = train.Stretch(self._lowest(moving), job.plan.num_steps / epoch)
        boundaries = train.choose_boundaries([whole_run], most=self._most)
        return boundaries, job.plan.num_steps


def _most_boundaries(config: Config, folder: Path, needed: float) -> int:
    """How many there is room for, of ``needed`` bytes each."""
    settings = config.train.cache
    room = settings.max_gigabytes * 1e9
    if folder.parent.is_dir():  # the rest of the disk is others'
        free = processes.from_main(lambda: shutil.disk_usage(folder.parent).free)
        room = min(room, 0.9 * free)
    most = int(room // needed)
    if settings.use == "on" and not most:
        raise InputError(
            f"train.cache.max_gigabytes is {settings.max_gigabytes}, but the "
            f"activations at one boundary take {needed / 1e9:.3g}. Raise it, "
            'or set train.cache.dtype to "bfloat16".'
        )
    return most


def why_not(job: build.Job) -> str | None:
    """Say why activations of a run cannot be kept, if so."""
    config = job.config
    if config.train.cache.use == "off":
        return 'train.cache.use is "off"'
    if forward.prefix_fn(config, job.model) is None:
        return "frozen layers do not run by themselves in this task, or drop out"
    if lowest_moving(job) == 0 and not job.plan.open_at:
        return "the lowest layer moves from the start"
    if config.data.augment is not None or job.task.make_augment is not None:
        return "each epoch changes its examples at random"
    if job.model.adapter is not None and not job.model.adapter.packs:
        return "a prompt makes the texts longer"
    if config.data.batching == "pack" and job.task.packs:
        return "several texts share a row for good"
    if config.train.teacher.model is not None:
        return "a teacher reads the same batches"
    if job.asks(None) and not two_heads.silent_phases(config, job.plan, job.asks):
        return "the old head reads whole examples in each step"
    model = job.model
    batches = feed.make_eval_batches(config.data, job.tables["train"], model)
    if not train.is_one_array(
        model.prefix_fn, model.params, batches.batch_fn(0), num_layers=model.num_layers
    ):
        return "the layers of the model hand on more than one array"
    return None


def lowest_moving(job: build.Job) -> int:
    """The depth of the lowest layer that ever moves."""
    return min(moving_layers(job.model, job.labels))


def rows_of(job: build.Job, split: str) -> train.Rows:
    """The rows of a split, for the cache."""
    table = job.tables[split]
    batches = feed.make_eval_batches(job.config.data, table, job.model)
    shared = feed.shares_rows(job.config.data, job.model)
    of_tokens = {}
    if isinstance(table, data.TokenTable):
        of_tokens = {
            "lengths": table.lengths,
            "padding": table.padding,
            # rows that share others are taken apart to begin at their first token
            "padding_side": "right" if shared else table.padding_side,
        }
    return train.Rows(
        name=repr(table),
        batches=Placed(batches, make_place(job.config)),
        num_rows=len(table),
        only_embedded=EMBEDDED,
        **of_tokens,
    )


class Placed:
    """Batches on the devices; iterate as often as wanted."""

    def __init__(
        self, batches: Iterable[Batch], place: Callable[[Batch], Batch]
    ) -> None:
        self._batches = batches
        self._place = place

    def __iter__(self) -> Iterator[Batch]:
        return map(self._place, self._batches)
