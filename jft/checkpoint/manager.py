# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a run: saved in the background, verified when restored."""

import dataclasses
import json
import os
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from jft import paths, processes
from jft.checkpoint import arrays as array_files
from jft.checkpoint import step_folder, sums
from jft.checkpoint.manifest import (
    CheckpointError,
    CorruptError,
    Manifest,
    differences,
    leaf_differences,
)
from jft.checkpoint.retention import Mode, rank, steps_to_keep


class Restored(NamedTuple):
    """What a checkpoint gave back."""

    arrays: Any  # as the abstract tree: structure, dtypes, shardings; donatable
    data_state: dict[str, Any]
    history: list[dict[str, Any]]
    manifest: Manifest
    skipped: tuple[str, ...] = ()  # why newer steps were passed over, newest first


class Checkpoints:
    """The checkpoints below one directory.

    Nothing is created or changed before the first ``save``, so a reader may look at
    the directory of a run that is still going. At most one save is under way: the
    next one waits for it. Use it as a context manager, or call ``close``: a save
    still under way when the interpreter exits may be lost (never half kept).

    Several processes share the directory. All methods but ``manifest`` and ``close``
    are collective: the main process writes and says what there is, and all read.

    Args:
      directory: where the step folders are.
      keep_last: how many of the newest steps to keep.
      keep_every: keep the multiples of this step for ever.
      keep_best: how many of the best steps to keep, by ``best_value``.
      best_mode: whether the best value is the largest or the smallest.
      asynchronous: write in a thread while training goes on.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        keep_last: int = 2,
        keep_every: int | None = None,
        keep_best: int = 1,
        best_mode: Mode = "max",
        asynchronous: bool = True,
    ) -> None:
        if keep_last < 1:
            raise CheckpointError(
                f"keep_last is {keep_last}: keep at least 1 to resume."
            )
        self.directory = Path(directory).absolute()
        self.blocking_seconds: list[float] = []  # how long each save held up the run
        self._keep_last = keep_last
        self._keep_every = keep_every
        self._keep_best = keep_best
        self._best_mode = best_mode
        self._asynchronous = asynchronous
        self._executor: ThreadPoolExecutor | None = None
        self._writing: Future[None] | None = None

    def tidy(self) -> None:
        """Remove what a killed run left half-written or half-deleted. Collective.

        For the run that goes on to write here, and no other reader: what another run
        is just writing looks the same. The first save does it too.
        """
        processes.from_main(lambda: step_folder.prepare(self.directory))

    def save(
        self,
        step: int,
        arrays: Any,
        *,
        data_state: Mapping[str, Any],
        history: list[dict[str, Any]],
        manifest: Manifest,
        best_value: float | None = None,
    ) -> None:
        """Copy everything to the host, then write it in the background.

        When it returns, ``arrays`` may be donated and ``history`` changed. Steps
        beyond ``step`` are deleted when it is written: they belong to a line of the
        run that was given up when an earlier step was restored.

        Args:
          step: number of finished training steps; names the folder.
          arrays: pytree of arrays; a typed key goes in as ``jax.random.key_data``.
          data_state: state of the data stream, as JSON can hold it.
          history: metric records so far, as JSON can hold them.
          manifest: identity of the run and the groups open now.
          best_value: the metric to rank this step by; NaN never ranks.

        Raises:
          CheckpointError: if this save cannot start or the one before it failed.
        """
        started = time.perf_counter()
        self.wait()
        host = array_files.to_host(arrays)
        run = json.dumps({"data_state": dict(data_state), "history": history})
        manifest = dataclasses.replace(manifest, step=step, best_value=best_value)
        processes.from_main(lambda: self._start_writing(manifest, host, run))
        if not self._asynchronous:
            self.wait()
        self.blocking_seconds.append(time.perf_counter() - started)

    def steps(self) -> list[int]:
        """Return the finished steps on the disk, ascending."""
        return processes.from_main(self._steps)

    def latest_step(self) -> int | None:
        """Return the newest finished step, or None."""
        return max(self.steps(), default=None)

    def best_step(self) -> int | None:
        """Return the kept step with the best value, or None if none has one."""
        ranked = processes.from_main(lambda: rank(self._values(), self._best_mode))
        return next(iter(ranked), None)

    def manifest(self, step: int) -> Manifest:
        """Read what a step says about itself, without checking its files.

        Raises:
          CheckpointError: if the step is not there or says nothing readable.
        """
        return step_folder.read_manifest(step_folder.find(self.directory, step))

    def restore(
        self,
        step: int,
        abstract_arrays: Any,
        *,
        expect: Manifest | None,
        part: str | None = None,
    ) -> Restored:
        """Read one step, verified from the files to the last bit of every leaf.

        Args:
          step: one of ``steps()``.
          abstract_arrays: tree of arrays or ``ShapeDtypeStruct``; the leaves come
            back with its dtypes and shardings, in buffers that can be donated.
          expect: identity of the run that wants to continue; None only to take
            leaves from another run, whose labels and configuration may differ.
          part: the top-level key, such as "trainable", to which ``abstract_arrays``
            belongs; None reads all.

        Raises:
          CorruptError: if a file or a leaf is not what was saved; it names which.
          CheckpointError: if the base, the labels, the configuration or a leaf's
            shape is not the one expected; it says what differs.
        """
        # the main process knows, where others' view of a shared disk may lag behind
        folder = processes.from_main(lambda: step_folder.find(self.directory, step))
        prefix = "" if part is None else f"{part}/"
        abstract = {prefix + p: x for p, x in paths.flatten(abstract_arrays).items()}

        def read() -> Restored:
            manifest = _verify(folder, step)
            leaves = {p: x for p, x in manifest.leaves.items() if p.startswith(prefix)}
            _check_fit(folder, manifest, leaves, abstract=abstract, expect=expect)
            host = step_folder.read_arrays(folder, leaves)
            run = step_folder.read_run(folder)
            return Restored(arrays=host, manifest=manifest, **run)

        restored = processes.together(read)
        placed = [
            array_files.place(restored.arrays[path], like)
            for path, like in abstract.items()
        ]
        structure = jax.tree.structure(abstract_arrays)
        return restored._replace(arrays=jax.tree.unflatten(structure, placed))

    def restore_latest(
        self,
        abstract_arrays: Any,
        *,
        expect: Manifest,
        on_corrupt: Literal["error", "fall_back"] = "error",
    ) -> Restored:
        """Restore the newest step; on request, the newest that is good.

        With ``on_corrupt="fall_back"`` a damaged step is passed over, and
        ``Restored.skipped`` says why. A good step that belongs to another run, base or
        model is an error either way.

        Raises:
          CheckpointError: if there is no step, or none that may be used.
        """
        skipped: list[str] = []
        for step in reversed(self.steps()):
            try:
                restored = self.restore(step, abstract_arrays, expect=expect)
                return restored._replace(skipped=tuple(skipped))
            except CorruptError as error:
                if on_corrupt == "error":
                    raise
                skipped.append(f"step {step} was passed over: {error}")
        raise CheckpointError(
            f"there is no usable checkpoint in {self.directory}: "
            + (" ".join(skipped) or "no step was ever finished there.")
        )

    def wait(self) -> None:
        """Wait for the save under way.

        Raises:
          CheckpointError: if it failed; the steps before it are untouched.
        """
        processes.from_main(self._finish_writing)

    def close(self) -> None:
        """Wait for the save under way and end the thread; raises as ``wait`` does."""
        executor, self._executor = self._executor, None
        try:
            self._finish_writing()
        finally:
            if executor is not None:
                executor.shutdown()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _start_writing(
        self, manifest: Manifest, host: Mapping[str, np.ndarray], run: str
    ) -> None:
        """Hand everything to the thread that writes."""
        if self._executor is None:
            step_folder.prepare(self.directory)
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing = self._executor.submit(self._write, manifest, host, run)

    def _finish_writing(self) -> None:
        """Wait for the thread, in the process that has one."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.result()
        except Exception as error:
            raise CheckpointError(
                f"a checkpoint could not be written to {self.directory}: {error!r}. "
                "Check the free space and the permissions there; "
                f"the last finished step is {max(self._steps(), default=None)}."
            ) from error

    def _write(
        self, manifest: Manifest, host: Mapping[str, np.ndarray], run: str
    ) -> None:
        """Write a step, then delete those that no rule keeps and those after it."""
        step_folder.write(self.directory, manifest, host, run)
        keep = steps_to_keep(
            {s: v for s, v in self._values().items() if s <= manifest.step},
            keep_last=self._keep_last,
            keep_every=self._keep_every,
            keep_best=self._keep_best,
            best_mode=self._best_mode,
        )
        for step in set(self._steps()) - keep:
            step_folder.delete(self.directory, step)

    def _steps(self) -> list[int]:
        return step_folder.list_steps(self.directory)

    def _values(self) -> dict[int, float | None]:
        """Return each finished step's value; None too where it cannot be read."""
        values: dict[int, float | None] = {}
        for step in self._steps():
            try:
                values[step] = self.manifest(step).best_value
            except CheckpointError:
                values[step] = None
        return values


def _verify(folder: Path, step: int) -> Manifest:
    """Check the files of a step, and return what it says about itself."""
    sums.verify(folder)
    manifest = step_folder.read_manifest(folder)
    if manifest.step != step:
        raise CorruptError(f"{folder} was renamed: it holds step {manifest.step}.")
    return manifest


def _check_fit(
    folder: Path,
    manifest: Manifest,
    leaves: Mapping[str, Any],
    *,
    abstract: Mapping[str, Any],
    expect: Manifest | None,
) -> None:
    """Refuse a step of another run, or with other leaves than are wanted."""
    reasons = differences(expect, manifest) if expect is not None else []
    if reason := leaf_differences(abstract, leaves):
        reasons.append(reason)
    if reasons:
        raise CheckpointError(
            f"checkpoint {folder} does not fit this run: {'; '.join(reasons)}. Use "
            "the settings and base it was made with, or another directory."
        )
