# SPDX-License-Identifier: Apache-2.0
"""What frozen layers say of each row never changes: computed once, kept in files."""

import functools
import math
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jft import paths, processes
from jft.data import Pad, RowFiller, TokenTable, digest, open_rows, unpack_batch
from jft.train.state import cast_floating
from jft.types import (
    HIDDEN,
    Batch,
    InputError,
    Interrupted,
    LayerIndex,
    Params,
    PrefixFn,
)

NOT_KEPT = ("index", "loss_mask")  # of a batch, made anew with it
QUIET_SECONDS = 2.0  # shorter work shows no progress


class Rows(NamedTuple):
    """The rows of a split, as batches that hold each of them once, at ``index``."""

    name: str  # equal for equal rows, such as the ``repr`` of their table
    batches: Iterable[Batch]  # placed; with ``index`` int32 [B], -1 where padding
    num_rows: int
    lengths: Mapping[str, np.ndarray] = {}  # tokens by group; {}: all rows are alike
    padding: Mapping[str, Pad] = {}
    padding_side: str = "right"
    # fields that are read below the first boundary alone, such as images
    only_embedded: Sequence[str] = ()


class ActivationCache:
    """Keeps what the layers below a boundary say of the rows of splits.

    Several processes share the folder: each computes its part of every batch, the main
    one writes the files, and each reads those rows that it trains on. All methods but
    ``boundary`` and ``table`` are then collective.

    Args:
      prefix_fn: from `jft.models.make_prefix_fn`.
      splits: the rows; what is small and read in every epoch.
      folder: of the files, a folder in it for each split and boundary. What is found
        there is read again if nothing that it was computed from has changed.
      layer_index: depth of a parameter's path.
      dtype: of the activations in the files.
      compute_dtype: of the layers, as for `make_train_step`.
      facts: what else the activations depend on, such as the model's config.
      stop_requested: polled while they are computed.
    """

    def __init__(
        self,
        prefix_fn: PrefixFn,
        splits: Mapping[str, Rows],
        *,
        folder: Path,
        layer_index: LayerIndex,
        dtype: Any = np.float32,
        compute_dtype: Any = None,
        facts: str = "",
        stop_requested: Callable[[], bool] = lambda: False,
    ) -> None:
        self.folder = folder
        self.seconds = 0.0  # spent on it, compiling included
        self.compile_seconds = 0.0
        self.layers_run = 0  # rows times layers
        self.num_computed = 0  # rows, once for each boundary
        self.num_found = 0
        self.most_bytes = 0  # at any time
        self._prefix_fn = prefix_fn
        self._splits = dict(splits)
        self._layer_index = layer_index
        self._dtype = np.dtype(dtype)
        self._compute_dtype = compute_dtype
        self._facts = facts
        self._stop_requested = stop_requested
        self._tables: dict[str, dict[int, TokenTable]] = {name: {} for name in splits}
        self._shapes: dict[str, dict[int, tuple[int, ...]]] = {s: {} for s in splits}

    def boundary(self, split: str) -> int:
        """Where batches of a split start in this phase; 0: at the beginning."""
        return max(self._tables[split], default=0)

    def table(self, split: str) -> TokenTable | None:
        """The rows of a split with their activations, in this phase."""
        return self._tables[split].get(self.boundary(split))

    def keep(self, params: Params, boundaries: Mapping[str, Sequence[int]]) -> None:
        """Have the activations of splits at these boundaries and no others.

        Args:
          params: all of them, as they are now; no layer below a boundary that was
            kept before has changed since.
          boundaries: by split; the highest is where its batches start.

        Raises:
          Interrupted: when a stop was asked for.
        """
        began = time.perf_counter()
        for split, tables in self._tables.items():
            for b in [b for b in tables if b not in boundaries[split]]:
                del tables[b]
                _remove(self._place(split, b))
            if missing := [b for b in boundaries[split] if b not in tables]:
                self._fill(params, split, missing)
        self.seconds += time.perf_counter() - began
        size = sum(
            self._bytes(split, boundary, params)
            for split, tables in self._tables.items()
            for boundary in tables
        )
        self.most_bytes = max(self.most_bytes, int(size))

    def bytes_per_boundary(self, params: Params) -> float:
        """Bytes of the files of one boundary, of all splits, at most."""
        return sum(self._bytes(split, 1, params) for split in self._splits)

    def close(self) -> None:
        """Remove the files, when the run is over."""
        for tables in self._tables.values():
            tables.clear()
        _remove(self.folder)

    def _bytes(self, split: str, boundary: int, params: Params) -> float:
        tokens = float(self._splits[split].num_rows)
        if self._has_length(split, boundary, params):
            tokens = float(self._lengths(split, params)["input"].sum())
        width = math.prod(self._shape(split, boundary, params)[2:])
        return float(tokens * width * self._dtype.itemsize)

    def _place(self, split: str, boundary: int) -> Path:
        return self.folder / f"{split}-{boundary}"

    def _fill(self, params: Params, split: str, boundaries: Sequence[int]) -> None:
        """Open what is there, and compute the rest in one pass."""
        num_rows, tables = self._splits[split].num_rows, self._tables[split]
        leaves = self._leaf_digests(params, below=max(boundaries))
        keys = {b: self._key(leaves, split, b) for b in boundaries}
        # the main process looks first, so that no other remembers what was not there
        missing = processes.from_main(
            lambda: {
                b: key
                for b, key in keys.items()
                if open_rows(self._place(split, b) / key) is None
            }
        )
        if missing:
            self._compute(params, split, missing)
            self.layers_run += num_rows * max(missing)
        tables |= processes.together(
            lambda: {b: self._open(split, b, key, params) for b, key in keys.items()}
        )
        self.num_computed += num_rows * len(missing)
        self.num_found += num_rows * (len(keys) - len(missing))

    def _compute(self, params: Params, split: str, keys: Mapping[int, str]) -> None:
        """One pass over the rows, up to the highest boundary."""
        from tqdm.auto import tqdm

        rows = self._splits[split]
        for b in keys:  # what was computed from something else
            _remove(self._place(split, b))
        fillers = self._fillers(split, keys, params) if processes.is_main() else {}
        compute = jax.jit(self._hidden_at(tuple(sorted(keys))))
        bar = tqdm(
            total=rows.num_rows,
            desc=f"activations of {split}",
            unit=" rows",
            disable=not processes.is_main(),
            delay=QUIET_SECONDS,
            dynamic_ncols=True,
        )
        try:
            with bar:
                for batch, hidden in self._run(compute, params, rows.batches):
                    index = processes.whole(batch["index"])
                    fields = {
                        name: processes.whole(x)
                        for name, x in batch.items()
                        if name not in rows.only_embedded
                    }
                    said = {b: processes.whole(x) for b, x in sorted(hidden.items())}
                    for b, filler in fillers.items():
                        of_rows = _kept_fields({**fields, f"{HIDDEN}{b}": said[b]})
                        filler.write(index, of_rows)
                    bar.update(int((index >= 0).sum()))
            processes.from_main(lambda: _finish(fillers.values()))
        finally:
            for filler in fillers.values():
                filler.discard()

    def _fillers(
        self, split: str, keys: Mapping[int, str], params: Params
    ) -> dict[int, RowFiller]:
        """The files to write, by boundary."""
        rows = self._splits[split]
        return {
            b: RowFiller(
                self._place(split, b) / key,
                lengths=self._lengths(split, params),
                padding=self._padding(split, b, params),
                padding_side=rows.padding_side,
                columns={"@example": np.arange(rows.num_rows)},
            )
            for b, key in keys.items()
        }

    def _run(
        self, compute: Any, params: Params, batches: Iterable[Batch]
    ) -> Iterator[tuple[Batch, dict[int, Any]]]:
        """Let the device work on the next batch while the last one is written."""
        programs: dict[Any, Any] = {}  # by the shapes of a batch
        computed: deque[tuple[Batch, dict[int, Any]]] = deque()
        for batch in batches:
            if self._stop_requested():
                raise Interrupted(
                    "a stop was requested while activations were computed"
                )
            shapes = tuple((name, x.shape) for name, x in batch.items())
            if shapes not in programs:
                before = time.perf_counter()
                programs[shapes] = compute.lower(params, batch).compile()
                self.compile_seconds += time.perf_counter() - before
            computed.append((batch, programs[shapes](params, batch)))
            if len(computed) > 1:
                yield computed.popleft()
        yield from computed

    def _hidden_at(self, boundaries: tuple[int, ...]) -> Callable[..., dict[int, Any]]:
        """The function from params and a batch to what is said at each boundary."""

        def hidden_at(params: Params, batch: Batch) -> dict[int, Any]:
            if self._compute_dtype is not None:
                params, batch = cast_floating((params, batch), self._compute_dtype)
            found = {}
            for boundary in boundaries:
                batch = self._prefix_fn(params, batch, stop=boundary)
                found[boundary] = batch[f"{HIDDEN}{boundary}"].astype(self._dtype)
            return found

        return hidden_at

    def _shape(self, split: str, boundary: int, params: Params) -> tuple[int, ...]:
        """Of the activations of the first batch of a split."""
        shapes = self._shapes[split]
        if boundary not in shapes:
            first = next(iter(self._splits[split].batches))
            made = jax.eval_shape(self._hidden_at((boundary,)), params, first)
            shapes[boundary] = tuple(made[boundary].shape)
        return shapes[boundary]

    def _has_length(self, split: str, boundary: int, params: Params) -> bool:
        """Whether each position has activations there, and not the first alone."""
        here, there = (self._shape(split, b, params)[1] for b in (boundary, 1))
        return here == there

    def _lengths(self, split: str, params: Params) -> dict[str, np.ndarray]:
        """Positions of each row by group; an image has as many as all others."""
        rows = self._splits[split]
        if rows.lengths:
            return dict(rows.lengths)
        return {"input": np.full(rows.num_rows, self._shape(split, 1, params)[1])}

    def _open(self, split: str, boundary: int, key: str, params: Params) -> TokenTable:
        """The table of files that are there."""
        place = self._place(split, boundary) / key
        kept = open_rows(place)
        if kept is None:
            raise InputError(
                f"the activations in {place} cannot be read where they were just "
                'written. Look at the disk, or set train.cache.use to "off".'
            )
        rows = self._splits[split]
        return TokenTable(
            kept,
            range(rows.num_rows),
            settings={},
            padding=self._padding(split, boundary, params),
            padding_side=rows.padding_side,
        )

    def _padding(self, split: str, boundary: int, params: Params) -> dict[str, Pad]:
        padding = dict(self._splits[split].padding)
        if self._has_length(split, boundary, params):
            padding[f"{HIDDEN}{boundary}"] = Pad(0)
        return padding

    def _leaf_digests(self, params: Params, *, below: int) -> dict[str, str]:
        """A digest of each parameter of the layers below a boundary, by path."""
        return {
            path: digest([processes.whole(leaf)])
            for path, leaf in paths.flatten(params).items()
            if self._layer_index(path) < below
        }

    def _key(self, leaves: Mapping[str, str], split: str, boundary: int) -> str:
        """A digest of all that the activations are computed from."""
        dtypes = f"{self._dtype} {self._compute_dtype}"
        parts = [self._facts, str(boundary), dtypes, self._splits[split].name]
        for path, leaf in leaves.items():
            if self._layer_index(path) < boundary:
                parts += [path, leaf]
        return digest(parts)


def _finish(fillers: Iterable[RowFiller]) -> None:
    """Close the files, which are then opened to read."""
    for filler in fillers:
        filler.finish()


def _remove(folder: Path) -> None:
    """Remove files, in the process that wrote them."""
    if processes.is_main():
        shutil.rmtree(folder, ignore_errors=True)


def _kept_fields(batch: Batch) -> dict[str, Any]:
    """The fields to keep of a batch, each example in a row of its own."""
    alone = unpack_batch(batch)
    return {name: x for name, x in alone.items() if name not in NOT_KEPT}


def is_one_array(
    prefix_fn: PrefixFn, params: Params, batch: Batch, *, num_layers: int
) -> bool:
    """Whether a model hands on one array ``[B, L, …]`` at each boundary.

    An encoder-decoder, for one, hands on two. Only one array can be kept.
    """
    for boundary in (1, num_layers + 1):
        run = functools.partial(prefix_fn, stop=boundary)
        made = jax.eval_shape(run, params, batch)[f"{HIDDEN}{boundary}"]
        if not isinstance(made, jax.ShapeDtypeStruct) or made.ndim < 3:
            return False
    return True
