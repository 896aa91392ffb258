# SPDX-License-Identifier: Apache-2.0
"""Rows of fields that are computed batch by batch, in any order, and kept in files."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jft.data.batches.ragged import INDEX, RaggedRows, file_sum
from jft.data.fields.padding import Pad
from jft.types import InputError


class RowFiller:
    """Takes padded batches, and keeps of each row what is no padding.

    The lengths are known beforehand, so each field is one file of the right size, in
    which every row has its place. Nothing is at ``folder`` before `finish`.

    Args:
      folder: written beside its place, then renamed into it.
      lengths: of each row, int [N], by group of `Pad`.
      padding: of the fields with a length axis; the others are kept whole.
      padding_side: "right" or "left".
      columns: further fields, of which all rows are known: ``{name: int [N]}``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        lengths: Mapping[str, np.ndarray],
        padding: Mapping[str, Pad],
        padding_side: str = "right",
        columns: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self._folder = folder
        self._partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
        self._padding = dict(padding)
        self._left = padding_side == "left"
        self._offsets = {
            group: np.concatenate([[0], np.cumsum(x, dtype=np.int64)])
            for group, x in lengths.items()
        }
        self._columns = {f"@{group}": x for group, x in lengths.items()}
        self._columns |= columns or {}
        self._num_rows = len(next(iter(self._columns.values())))
        self._fields: dict[str, _Field] = {}
        self._written = np.zeros(self._num_rows, bool)
        with _room_for(folder):
            shutil.rmtree(self._partial, ignore_errors=True)
            self._partial.mkdir(parents=True)

    def write(self, index: np.ndarray, batch: Mapping[str, Any]) -> None:
        """Keep the rows of a batch.

        Args:
          index: the number of each row, int [B]; -1 is a row of padding.
          batch: ``{field: [B, L, …] or [B, …]}``, the same fields each time.

        Raises:
          InputError: if there is no room for the files.
        """
        for name, values in batch.items():
            if name not in self._fields:
                self._fields[name] = self._open(name, values)
            for row, x in zip(index.tolist(), values, strict=True):
                if row >= 0:
                    self._fields[name].put(row, x, from_end=self._left)
        self._written[index[index >= 0]] = True

    def finish(self) -> RaggedRows:
        """Close the files and put the folder in its place.

        Raises:
          InputError: if a row was never written: it would read as zeros.
        """
        if len(absent := np.flatnonzero(~self._written)):
            raise InputError(
                f"{len(absent)} of {self._num_rows} rows were never written, the first "
                f"{absent[:10].tolist()}; {self._folder} would hold zeros in their "
                "place. Give write every row once, by its index."
            )
        for name, column in self._columns.items():
            field = self._open(name, np.asarray(column, np.int32))
            field.values[:] = column
            self._fields[name] = field
        columns = {name: self._close(name) for name in self._fields}
        index = {"rows": self._num_rows, "columns": columns}
        (self._partial / INDEX).write_text(json.dumps(index), "utf-8")
        shutil.rmtree(self._folder, ignore_errors=True)
        self._partial.rename(self._folder)
        return RaggedRows(self._folder)

    def discard(self) -> None:
        """Remove what was written so far."""
        self._fields.clear()
        shutil.rmtree(self._partial, ignore_errors=True)

    def _open(self, name: str, batch: np.ndarray) -> "_Field":
        """Make the file of a field, given one batch of it."""
        inner = batch.shape[1:]
        if name in self._padding:
            offsets = self._offsets[self._padding[name].group]
        elif inner:
            offsets = np.arange(self._num_rows + 1, dtype=np.int64) * inner[0]
        else:
            offsets = None
        shape = (self._num_rows,) if offsets is None else (int(offsets[-1]), *inner[1:])
        with _room_for(self._folder):
            values = _allocate(self._partial / f"{name}.values", shape, batch.dtype)
            if offsets is not None:
                offsets.astype("<i8").tofile(self._partial / f"{name}.offsets")
        return _Field(values, offsets)

    def _close(self, name: str) -> dict[str, Any]:
        """Return what the index keeps of a field."""
        values, offsets = self._fields[name]
        if isinstance(values, np.memmap):
            values.flush()
        suffixes = ["values"] if offsets is None else ["values", "offsets"]
        dtype = values.dtype
        return {
            # the code of bfloat16 says no more than that it has two bytes
            "dtype": dtype.name if dtype.kind == "V" else dtype.str,
            "inner": None if offsets is None else values.shape[1:],
            "files": {x: file_sum(self._partial / f"{name}.{x}") for x in suffixes},
        }


class _Field(NamedTuple):
    """The values of all rows one after another, and where each row begins."""

    values: np.ndarray
    offsets: np.ndarray | None  # None: a scalar a row

    def put(self, row: int, x: Any, *, from_end: bool) -> None:
        """Write one row, without its padding."""
        if self.offsets is None:
            self.values[row] = x
            return
        start, stop = self.offsets[row : row + 2]
        self.values[start:stop] = (
            x[len(x) - (stop - start) :] if from_end else x[: stop - start]
        )


def _allocate(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Reserve the room of an array: a full disk is an error now, not a crash later."""
    size = int(np.prod(shape)) * dtype.itemsize
    with path.open("xb") as stream:
        if not size:  # which cannot be mapped
            return np.zeros(shape, dtype)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(stream.fileno(), 0, size)
        else:
            stream.truncate(size)
    return np.memmap(path, dtype, mode="r+", shape=shape)


@contextmanager
def _room_for(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{folder.parent} cannot be written: {error.strerror}. Make room there, or "
            "name another folder."
        ) from error
