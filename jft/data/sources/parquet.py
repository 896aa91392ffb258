# SPDX-License-Identifier: Apache-2.0
"""Parquet files, whose rows are read at random from a memory map.

Parquet is compressed in groups of many rows, so a row alone cannot be read. The columns
are written once, uncompressed, as Arrow into the cache folder, and mapped from there:
neither the writing nor the reading takes memory that grows with the files.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jft.data.sources.arrow import is_file, plain_type
from jft.data.sources.cache import digest_file
from jft.data.sources.chunked import ChunkedColumn
from jft.data.sources.images import read_image
from jft.data.sources.source import digest
from jft.files import cache_folder, write_atomically
from jft.types import InputError

BATCH_BYTES = 8 << 20  # of rows that are in memory at once while a file is converted
MOST_ROWS = 4096  # of a batch; values that repeat are larger than the file says


class ParquetSource:
    """Rows of Parquet files, by position.

    Structs are dicts, lists lists, dictionaries their values, nulls None; an image, as
    a struct of ``bytes`` and ``path``, is uint8 [h, w, c].

    Args:
      path: a file, a folder of files, a pattern such as ``data/train-*.parquet``, or
        several files; the rows follow the files in their order, by name of a folder
        or pattern.
      columns: the columns to read; None reads all. What is left out takes no space.

    Raises:
      InputError: if the package is absent, if there is no file or no row, if a file is
        no Parquet file or damaged, has other columns or types than the first, or
        lacks a column that is asked for, or if the cache cannot be written.

    Example:
      >>> source = ParquetSource("films.parquet")  # doctest: +SKIP
      >>> source[17], source.where(17, "label")  # doctest: +SKIP
      ({'text': 'good', 'label': 1}, "films.parquet, row 17, column 'label'")

    Source: https://parquet.apache.org and https://arrow.apache.org/docs/format
    """

    def __init__(
        self,
        path: str | Path | Sequence[str | Path],
        *,
        columns: Sequence[str] | None = None,
    ) -> None:
        files = _find(path)
        schema, counts = _inspect(files, columns)
        self.columns = tuple(schema.names)
        self._names = [file.name for file in files]
        self._starts = np.cumsum([0, *counts])  # of each file, and where the last ends
        self._mapped, self._content = _prepare(files, schema)
        self._open()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = range(len(self))[index]  # or IndexError
        batch = int(np.searchsorted(self._bounds, index, side="right")) - 1
        start = index - int(self._bounds[batch])
        (row,) = self._batches[batch].slice(start, 1).to_pylist()
        for name in self._images:
            row[name] = self._image(row[name], index)
        return dict(row)

    def column(self, name: str) -> Sequence[Any]:
        """Return the values of a column; for each image, its name or where it is."""
        return ChunkedColumn(len(self), partial(self._values, name))

    def where(self, index: int, column: str) -> str:
        """Say where a value stands; rows are counted from 0 in each file."""
        return f"{self._where(index)}, column {column!r}"

    def _where(self, index: int) -> str:
        file = int(np.searchsorted(self._starts, index, side="right")) - 1
        return f"{self._names[file]}, row {index - self._starts[file]}"

    def __repr__(self) -> str:
        columns = list(self.columns)
        return f"ParquetSource({len(self)} rows, {columns}, {self._content})"

    def __getstate__(self) -> dict[str, Any]:
        opened = ("_table", "_batches", "_bounds")
        return {name: x for name, x in vars(self).items() if name not in opened}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def _open(self) -> None:
        pyarrow = import_pyarrow()
        try:
            mapped = pyarrow.memory_map(str(self._mapped))
            self._table = pyarrow.ipc.open_file(mapped).read_all()
        except (OSError, pyarrow.ArrowInvalid) as error:
            raise InputError(
                f"{self._mapped}, made from {self._names[0]}, cannot be read: {error}. "
                "Delete it; it is made again at the next start."
            ) from error
        self._batches = self._table.to_batches()
        self._bounds = np.cumsum([0, *map(len, self._batches)])
        self._images = [f.name for f in self._table.schema if is_file(f.type)]

    def _values(self, name: str, rows: range) -> list[Any]:
        column = self._table.column(name)
        if rows.step == 1:
            values = column.slice(rows.start, len(rows)).to_pylist()
        else:
            values = [column[row].as_py() for row in rows]
        if name not in self._images:
            return list(values)
        return [
            value and (value["path"] or self._where(row))
            for row, value in zip(rows, values, strict=True)
        ]

    def _image(self, value: dict[str, Any] | None, index: int) -> np.ndarray | None:
        if value is None:
            return None
        if value["bytes"] is None:
            raise InputError(
                f"the image {self._where(index)} is a path, {value['path']!r}; "
                "expected its bytes. Write the files into the table, or read a folder."
            )
        return read_image(value["bytes"], name=self._where(index))


def import_pyarrow() -> Any:
    """Import the package with its reader of Parquet.

    Raises:
      InputError: if it is absent.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            f"pyarrow cannot be imported: {error}. Install it with pip install "
            "'jft[parquet]'."
        ) from error
    return pyarrow


def _find(path: str | Path | Sequence[str | Path]) -> list[Path]:
    if not isinstance(path, str | Path):
        files = [file for one in path for file in _find(one)]
        if not files:
            raise InputError("there is no Parquet file in an empty list; name some.")
        return files
    path = Path(path).expanduser()
    if path.is_file():
        return [path]
    folder, pattern = (path, "*.parquet") if path.is_dir() else (path.parent, path.name)
    files = sorted(f for f in folder.glob(pattern) if not f.name.startswith("."))
    if not files:
        raise InputError(
            f"there is no file {folder.absolute() / pattern}. Check the path of the "
            "data: a Parquet file, a folder of them, or a pattern with '*'."
        )
    return files


def _inspect(
    files: Sequence[Path], columns: Sequence[str] | None
) -> tuple[Any, list[int]]:
    """Return the columns with their plain types, and the rows of each file."""
    pyarrow = import_pyarrow()
    counts, schema = [], None
    for file in files:
        with _open_parquet(file) as parquet:
            counts.append(parquet.metadata.num_rows)
            found = _plain_schema(parquet.schema_arrow, columns, file)
        schema = found if schema is None else schema
        try:
            schema = pyarrow.unify_schemas(
                [schema, found], promote_options="permissive"
            )
        except pyarrow.ArrowException as error:
            raise InputError(
                f"{file} does not fit {files[0]}: {error}. Give each column one type "
                "in all files."
            ) from error
        if sorted(schema.names) != sorted(found.names):
            raise InputError(
                f"{file} has the columns {found.names}; {files[0]} has {schema.names}. "
                "Name in columns those that all files have."
            )
    if not sum(counts):
        raise InputError(f"{files[0]} has no row; expected one example a row.")
    return schema, counts


def _plain_schema(schema: Any, columns: Sequence[str] | None, file: Path) -> Any:
    pyarrow = import_pyarrow()
    names = schema.names if columns is None else columns
    if wrong := sorted(name for name in names if schema.names.count(name) != 1):
        raise InputError(
            f"{file} has the columns {schema.names}; expected {wrong} once among them. "
            "Correct the names."
        )
    fields = [
        pyarrow.field(name, plain_type(schema.field(name).type)) for name in names
    ]
    return pyarrow.schema(fields)


def _prepare(files: Sequence[Path], schema: Any) -> tuple[Path, str]:
    """Return the rows as a file of Arrow in the cache, and a digest of their files."""
    folder = cache_folder() / "parquet"
    try:
        content = digest([_content(file, folder) for file in files])
        target = folder / f"{digest([content, str(schema)])}.arrow"
        if not target.exists():
            _convert(files, schema, target)
    except OSError as error:
        raise InputError(
            f"{files[0]} cannot be written as Arrow to {folder}: {error}. Set "
            "JFT_CACHE to a folder with room that can be written."
        ) from error
    return target, content


def _content(file: Path, folder: Path) -> str:
    """Digest a file; one that has not been written since is not read again."""
    state = file.stat()
    facts = (str(file.resolve()), str(state.st_size), str(state.st_mtime_ns))
    known = folder / f"{digest(facts)}.digest"
    if not known.exists():
        content = digest_file(file)
        with write_atomically(known) as unfinished:
            unfinished.write_text(content)
    return known.read_text()


def _convert(files: Sequence[Path], schema: Any, target: Path) -> None:
    """Write all rows as uncompressed Arrow, a batch at a time."""
    pyarrow = import_pyarrow()
    with (
        write_atomically(target) as unfinished,
        pyarrow.OSFile(str(unfinished), "wb") as stream,
        pyarrow.ipc.new_file(stream, schema) as writer,
    ):
        for file in files:
            for batch in _batches(file, schema.names):
                writer.write_batch(batch.select(schema.names).cast(schema))


def _batches(file: Path, columns: list[str]) -> Iterator[Any]:
    with _open_parquet(file) as parquet:
        groups = range(parquet.metadata.num_row_groups)
        size = sum(parquet.metadata.row_group(i).total_byte_size for i in groups)
        fitting = BATCH_BYTES * parquet.metadata.num_rows // max(size, 1)
        rows = min(max(fitting, 1), MOST_ROWS)
        yield from parquet.iter_batches(rows, columns=columns, use_threads=False)


@contextmanager
def _open_parquet(file: Path) -> Iterator[Any]:
    """A file of which little is in memory; what is wrong with it is an InputError."""
    pyarrow = import_pyarrow()
    try:
        with pyarrow.parquet.ParquetFile(
            file,
            pre_buffer=False,  # else, and without the next, a whole group of rows
            buffer_size=1 << 20,  # is held, compressed
            page_checksum_verification=True,
        ) as parquet:
            yield parquet
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(
            f"{file} cannot be read as Parquet: {error}. Expected a whole Parquet "
            "file; fetch or write it again."
        ) from error
