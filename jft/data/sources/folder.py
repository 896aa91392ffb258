# SPDX-License-Identifier: Apache-2.0
"""Images in folders, with what their names or a table say of them."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from jft.data.sources.delimited import load_delimited
from jft.data.sources.faults import Faults
from jft.data.sources.images import IMAGE_SUFFIXES, check_image, read_image
from jft.data.sources.jsonl import load_jsonl
from jft.data.sources.mapped import FileSource
from jft.data.sources.source import digest
from jft.types import InputError

FILE_NAME = "file_name"  # the column of a table of files

Columns = dict[str, list[Any]]


class Media(NamedTuple):
    """Files of one kind: the column that they fill, their names, their readers."""

    column: str
    suffixes: tuple[str, ...]
    read: Callable[[Path], np.ndarray]
    check: Callable[[Path], None]  # of the header alone


IMAGES = Media("image", IMAGE_SUFFIXES, read_image, check_image)


class FolderSource:
    r"""One file a row: JPEG, PNG or WebP, decoded when the row is asked for.

    Hidden files are passed over; any other file that is no image is an error, for a
    format that is not read would otherwise be left out in silence. ``repr`` tells the
    file names and sizes apart, not where the folder lies.

    Args:
      directory: of one folder a class, whose name is ``targets``; with ``pattern`` or
        ``metadata``, of files in it and anywhere below.
      pattern: a regular expression of a file's whole path below ``directory``, whose
        named groups are the columns: ``(?P<targets>\d)_(?P<speaker>\w+)_\d+\.png``.
      metadata: name of a table in ``directory``, ``.csv`` with a header or ``.jsonl``,
        whose column ``file_name`` is a path below ``directory`` and whose other
        columns are columns here.
      on_error: ``"skip"`` opens every file and leaves out those whose header cannot be
        read; ``"error"`` meets them when they are read.
      media: which files are read, and how.

    Attributes:
      columns: ``image``, what is known of it, and ``id``, the path below ``directory``,
        which is also what ``column("image")`` gives.
      skipped: why files were left out, the first hundred.
      num_skipped: how many were left out.

    Raises:
      InputError: if the folder or a class is empty, a file is no image, does not match
        the pattern or is not in the table, or if the table lists an absent file.

    Source: the table is that of Hugging Face's ``imagefolder``.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        pattern: str | None = None,
        metadata: str | None = None,
        on_error: str = "error",
        media: Media = IMAGES,
    ) -> None:
        self.directory, self._media = Path(directory), media
        self._table: FileSource | None = None
        faults = Faults(on_error)
        if not self.directory.is_dir():
            raise InputError(
                f"there is no folder {self.directory}; expected a folder of "
                f"{', '.join(media.suffixes)} files. Check the path of the data."
            )
        if pattern is not None and metadata is not None:
            raise InputError(
                f"the files of a folder have a pattern ({pattern!r}) or a table "
                f"({metadata!r}), not both. Set one to None."
            )
        if pattern is not None:
            names, values = _from_pattern(self.directory, media, pattern)
        elif metadata is not None:
            self._table = _load_table(self.directory, metadata)
            names, values = _from_table(self.directory, media, metadata, self._table)
        else:
            names, values = _from_classes(self.directory, media)
        if media.column in values:
            raise InputError(
                f"{pattern or metadata} has a column {media.column!r}, which is what "
                "the files themselves are called. Rename it."
            )
        values = {**values, "id": values.get("id", names)}
        rows = list(range(len(names)))
        if faults.skips:
            rows = [row for row in rows if self._has_header(names[row], faults)]
        faults.check_rows(self.directory, len(rows))
        self.columns = (media.column, *values)
        self.skipped, self.num_skipped = tuple(faults.messages), faults.count
        self._rows = rows  # of the table
        self._names = [names[row] for row in rows]
        self._values = {name: [x[row] for row in rows] for name, x in values.items()}

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        media = self._media.read(self.directory / self._names[index])
        values = {name: values[index] for name, values in self._values.items()}
        return {self._media.column: media, **values}

    def column(self, name: str) -> Sequence[Any]:
        """Return the values of a column; of the images, their paths in the folder."""
        return self._names if name == self._media.column else self._values[name]

    def where(self, index: int, column: str) -> str:
        """Say where a value stands: in a row of the table, or at which file."""
        if self._table is not None and column in self._table.columns:
            return self._table.where(self._rows[index], column)
        return f"{self._names[index]}, column {column!r}"

    def _has_header(self, name: str, faults: Faults) -> bool:
        try:
            self._media.check(self.directory / name)
        except InputError as error:
            faults.add(str(error))
            return False
        return True

    @cached_property
    def _digest(self) -> str:
        sizes = ((self.directory / name).stat().st_size for name in self._names)
        files = (f"{n}:{size}\n" for n, size in zip(self._names, sizes, strict=True))
        return digest([*files, repr(self._values)])

    def __repr__(self) -> str:
        columns = list(self.columns)
        return f"FolderSource({len(self)} rows, {columns}, {self._digest})"


def _from_classes(directory: Path, media: Media) -> tuple[list[str], Columns]:
    """Files in one folder a class, and the names of the folders."""
    classes = sorted(
        entry.name
        for entry in directory.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    )
    if not classes:
        raise InputError(
            f"{directory} holds no folder; expected one folder a class with its "
            "images. Set pattern where the files' names say the class, or metadata "
            "where a table does."
        )
    names: list[str] = []
    for name in classes:
        folder = directory / name
        files = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
        _check_suffixes(folder, files, media)
        if not files:
            raise InputError(
                f"the class folder {folder} is empty; add images or remove the folder."
            )
        names += [f"{name}/{file}" for file in files]
    return names, {"targets": [name.partition("/")[0] for name in names]}


def _from_pattern(
    directory: Path, media: Media, pattern: str
) -> tuple[list[str], Columns]:
    """All files, and what the pattern's groups match in their paths."""
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"the pattern {pattern!r} is no regular expression: {error}."
        ) from error
    if not regex.groupindex:
        raise InputError(
            f"the pattern {pattern!r} has no named group; expected one a column, such "
            "as (?P<targets>[a-z]+)_\\d+\\.png."
        )
    names = _files_below(directory, media)
    matches = [regex.fullmatch(name) for name in names]
    others = [n for n, match in zip(names, matches, strict=True) if match is None]
    if others:
        raise InputError(
            f"{directory / others[0]} does not match the pattern {pattern!r} "
            f"({len(others)} such files of {len(names)}); it must match the whole path "
            f"{others[0]!r}. Correct the pattern, or remove the file."
        )
    found = [match.groupdict() for match in matches if match is not None]
    return names, {group: [x[group] for x in found] for group in regex.groupindex}


def _load_table(directory: Path, metadata: str) -> FileSource:
    path = directory / metadata
    if path.suffix == ".csv":
        table = load_delimited(path, delimiter=",", quoted=True, header=True)
    elif path.suffix == ".jsonl":
        table = load_jsonl(path)
    else:
        raise InputError(f"the table {path} is neither .csv nor .jsonl. Rename it.")
    if FILE_NAME not in table.columns:
        raise InputError(
            f"{path} has the columns {list(table.columns)}; expected {FILE_NAME!r} "
            "among them, the paths of the images. Rename the column that has them."
        )
    return table


def _from_table(
    directory: Path, media: Media, metadata: str, table: FileSource
) -> tuple[list[str], Columns]:
    """The files that a table lists, all of those there are, in its order."""
    present = set(_files_below(directory, media, table=metadata))
    names = [str(PurePosixPath(str(name))) for name in table.column(FILE_NAME)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    absent = [name for name in names if name not in present]
    for wrong, what in ((absent, "an absent file"), (twice, "a file twice")):
        if wrong:
            raise InputError(
                f"{table.where(names.index(wrong[0]), FILE_NAME)} lists {what} of "
                f"{directory}, {wrong[0]!r} ({len(wrong)} such files). Correct the "
                "table."
            )
    if unlisted := sorted(present - set(names)):
        raise InputError(
            f"{directory / unlisted[0]} is not in {metadata} ({len(unlisted)} such "
            "files). Add a row for it, or remove the file."
        )
    others = [name for name in table.columns if name != FILE_NAME]
    return names, {name: list(table.column(name)) for name in others}


def _files_below(directory: Path, media: Media, *, table: str = "") -> list[str]:
    """All files that are not hidden, by their path below the folder, sorted."""
    paths = (
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if not path.is_dir()
    )
    names = sorted(
        name
        for name in paths
        if name != table and not any(p.startswith(".") for p in name.split("/"))
    )
    _check_suffixes(directory, names, media)
    if not names:
        raise InputError(
            f"{directory} holds no file; expected {', '.join(media.suffixes)}."
        )
    return names


def _check_suffixes(folder: Path, names: Sequence[str], media: Media) -> None:
    other = [n for n in names if not n.lower().endswith(media.suffixes)]
    if other:
        raise InputError(
            f"{folder / other[0]} is none of {', '.join(media.suffixes)} "
            f"({len(other)} such files in this folder). Convert or remove it."
        )
