# SPDX-License-Identifier: Apache-2.0
"""Rows of arrays of different lengths, in flat files that are memory-mapped.

A folder has, for each field, ``{field}.values`` with the values of all rows one after
another and, unless they are scalars, ``{field}.offsets`` with where each row begins.
``index.json`` is written last and knows the size and checksum of every file.
"""

import json
import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - numpy knows bfloat16 from then on
import numpy as np

from jft.types import InputError

INDEX = "index.json"
INT32 = np.iinfo(np.int32)
CHUNK = 2**20  # bytes, when checking files

Row = Mapping[str, Any]  # field -> array or scalar


class RaggedWriter:
    """Appends rows to the files of a folder that exists and is empty.

    A context: leaving it closes the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._columns: dict[str, _Column] = {}
        self._num_rows = 0

    def append(self, rows: Sequence[Row]) -> None:
        """Write rows, which all have the fields of the first.

        Whole numbers and booleans become int32, floats float32.

        Raises:
          InputError: if a field is absent, changes its kind or shape beyond the first
            axis, or does not fit int32; names it.
        """
        if not self._columns:
            self._columns = {name: _Column(self._folder, name) for name in rows[0]}
        for row in rows:
            if row.keys() != self._columns.keys():
                raise InputError(
                    f"a row has the fields {sorted(row)}, others have "
                    f"{sorted(self._columns)}. Give every row every field."
                )
        for name, column in self._columns.items():
            column.append([np.asarray(row[name]) for row in rows])
        self._num_rows += len(rows)

    def finish(self) -> None:
        """Write the index; without it the folder counts as half-written."""
        columns = {name: column.close() for name, column in self._columns.items()}
        index = {"rows": self._num_rows, "columns": columns}
        (self._folder / INDEX).write_text(json.dumps(index), "utf-8")

    def __enter__(self) -> "RaggedWriter":
        return self

    def __exit__(self, *_: object) -> None:
        for column in self._columns.values():
            column.close()


class RaggedRows:
    """The rows of a folder, read-only; made by `open_rows`, pickled by the folder.

    Memory holds nothing of them but what the system keeps of files for its own sake.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        index = json.loads((folder / INDEX).read_text("utf-8"))
        self._num_rows: int = index["rows"]
        self._values: dict[str, np.ndarray] = {}
        self._offsets: dict[str, np.ndarray] = {}
        for name, facts in index["columns"].items():
            flat = _map(folder / f"{name}.values", facts["dtype"])
            if facts["inner"] is None:
                self._values[name] = flat
                continue
            self._values[name] = flat.reshape(-1, *facts["inner"])
            self._offsets[name] = _map(folder / f"{name}.offsets", "<i8")

    def __len__(self) -> int:
        return self._num_rows

    @property
    def names(self) -> tuple[str, ...]:
        """The fields."""
        return tuple(self._values)

    def values(self, name: str) -> np.ndarray:
        """Return the values of all rows of a field, one after another."""
        return self._values[name]

    def row(self, index: int, names: Collection[str]) -> dict[str, Any]:
        """Return some fields of a row, without copying."""
        index = range(self._num_rows)[index]  # refuses what is outside
        return {name: self._field(name, index) for name in names}

    def _field(self, name: str, index: int) -> Any:
        offsets = self._offsets.get(name)
        if offsets is None:
            return self._values[name][index]
        return self._values[name][offsets[index] : offsets[index + 1]]

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        return RaggedRows, (self.folder,)


def open_rows(folder: Path) -> RaggedRows | None:
    """Open a folder; None if it is absent, half-written or damaged.

    Every byte is read once, to compare checksums.
    """
    try:
        index = json.loads((folder / INDEX).read_text("utf-8"))
        for name, facts in index["columns"].items():
            for suffix, expected in facts["files"].items():
                if file_sum(folder / f"{name}.{suffix}") != expected:
                    return None
        return RaggedRows(folder)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


class _Column:
    """The files of one field while they are written."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._files: dict[str, _File] = {}
        self._dtype = ""
        self._inner: tuple[int, ...] | None = None  # beyond the first axis; a scalar's
        self._end = 0

    def append(self, values: Sequence[np.ndarray]) -> None:
        shapes = {x.shape[1:] if x.ndim else None for x in values}
        if not self._files:
            self._inner = values[0].shape[1:] if values[0].ndim else None
        if shapes != {self._inner}:
            raise InputError(
                f"the field {self._name!r} has rows of the shapes {shapes} beyond the "
                "first axis (None: a scalar); give it one."
            )
        scalar = self._inner is None
        flat = _narrow(
            self._name, np.stack(values) if scalar else np.concatenate(values)
        )
        if not self._files:
            self._dtype = flat.dtype.str
            names = ["values"] if scalar else ["values", "offsets"]
            self._files = {n: _File(self._folder / f"{self._name}.{n}") for n in names}
            if not scalar:
                self._files["offsets"].write(np.zeros(1, "<i8"))
        if flat.dtype.str != self._dtype:
            raise InputError(
                f"the field {self._name!r} is {flat.dtype} in some rows and "
                f"{np.dtype(self._dtype)} in others; give it one kind of number."
            )
        self._files["values"].write(flat)
        if not scalar:
            ends = self._end + np.cumsum([len(x) for x in values], dtype="<i8")
            self._files["offsets"].write(ends)
            self._end = int(ends[-1])

    def close(self) -> dict[str, Any]:
        """Return what the index keeps of it."""
        files = {name: file.close() for name, file in self._files.items()}
        return {"dtype": self._dtype, "inner": self._inner, "files": files}


class _File:
    """A file that grows, and its size and checksum."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("xb")
        self._size, self._crc = 0, 0

    def write(self, array: np.ndarray) -> None:
        content = np.ascontiguousarray(array).data.cast("B") if array.size else b""
        self._stream.write(content)
        self._size += len(content)
        self._crc = zlib.crc32(content, self._crc)

    def close(self) -> list[int]:
        self._stream.close()
        return [self._size, self._crc]


def file_sum(path: Path) -> list[int]:
    """Size and checksum of a file, as the index has them."""
    size, crc = 0, 0
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            size += len(chunk)
            crc = zlib.crc32(chunk, crc)
    return [size, crc]


def _narrow(name: str, values: np.ndarray) -> np.ndarray:
    """The same numbers as little-endian int32 or float32."""
    if values.dtype.kind == "f":
        return values.astype("<f4", copy=False)
    if values.dtype.kind not in "iub":
        raise InputError(f"the field {name!r} is {values.dtype}; expected numbers.")
    if values.size and not INT32.min <= values.min() <= values.max() <= INT32.max:
        raise InputError(
            f"the field {name!r} has values from {values.min()} to {values.max()}; "
            "expected whole numbers that fit int32."
        )
    return values.astype("<i4", copy=False)


def _map(path: Path, dtype: str) -> np.ndarray:
    if not path.stat().st_size:  # which cannot be mapped
        return np.zeros(0, dtype)
    return np.memmap(path, dtype, mode="r").view(np.ndarray)
