# SPDX-License-Identifier: Apache-2.0
"""What a person gives to predict: files of images, texts, objects of a file."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jft import data
from jft.tasks import Task
from jft.types import InputError

Row = dict[str, Any]  # column -> value


class ImageFiles:
    """Image files, each decoded when it is asked for; a `jft.data.Source`."""

    columns = ("image", "id")

    def __init__(self, files: Sequence[Path]) -> None:
        self.names = [str(file) for file in files]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Row:
        name = self.names[index]
        return {"image": data.read_image(name), "id": name}

    def column(self, name: str) -> Sequence[str]:
        """Return the files' names, of whichever column."""
        del name
        return self.names

    def where(self, index: int, column: str) -> str:
        """Say which file it is."""
        del column
        return self.names[index]

    def __repr__(self) -> str:
        return f"ImageFiles({self.names})"


def find_images(path: Path) -> list[Path]:
    """The file itself, or every image below the folder."""
    if not path.exists():
        raise InputError(f"there is no file or folder {path}; check --images.")
    if not path.is_dir():
        return [path]
    below = sorted(path.rglob("*"))
    return [file for file in below if file.suffix.lower() in data.IMAGE_SUFFIXES]


def read_lines(path: str | None) -> list[Any]:
    """The lines of a file of texts, or its objects; ``-`` is the standard input."""
    if path is None:
        return []
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"--inputs={path} cannot be read: {error}. Give a UTF-8 file of one text a "
            "line."
        ) from error
    lines = text.removesuffix("\n").split("\n")
    if Path(path).suffix != ".jsonl":
        return lines
    return [_object(path, i, line) for i, line in enumerate(lines) if line.strip()]


def _object(path: str, number: int, line: str) -> Mapping[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {number + 1} is no JSON: {error}. Give one object a line."
        ) from error
    if not isinstance(value, dict):
        raise InputError(
            f"{path}, line {number + 1} holds {value!r}; expected one object a line."
        )
    return value


def make_rows(lines: Sequence[Any], task: Task, *, pairs: bool) -> list[Row]:
    """The columns that the task reads, of each line."""
    return [
        _row_of_object(line, task)
        if isinstance(line, Mapping)
        else _row_of_text(line, task, pairs=pairs)
        for line in lines
    ]


def _row_of_object(given: Mapping[str, Any], task: Task) -> Row:
    known = [column.name for column in task.inputs]
    needed = [column.name for column in task.inputs if not column.optional]
    if missing := sorted(set(needed) - set(given)):
        raise InputError(
            f"an object to ask about has {sorted(given)} and lacks {missing}; the task "
            f"{task.name!r} reads {known}."
        )
    return {name: given[name] for name in known if name in given}


def _row_of_text(text: str, task: Task, *, pairs: bool) -> Row:
    parts = text.split("\t") if pairs else [text]
    if not all(part.strip() for part in parts) or len(parts) != 1 + pairs:
        expected = "two texts with a tab between" if pairs else "a text"
        raise InputError(
            f"{text!r} was given to ask about; expected {expected}. Correct --texts or "
            "--inputs."
        )
    kinds = [column.kind for column in task.inputs]
    if kinds == ["words"]:
        return {task.inputs[0].name: text.split()}
    if kinds == ["messages"]:
        return {task.inputs[0].name: [{"role": "user", "content": text}]}
    names = [column.name for column in task.inputs]
    needed = sum(not column.optional for column in task.inputs)
    if not needed <= len(parts) <= len(names):
        raise InputError(
            f"the task {task.name!r} reads {names}, and {text!r} is {len(parts)} of "
            "them; give them as two texts with a tab between (--pairs), or as objects "
            "of a .jsonl file (--inputs)."
        )
    return dict(zip(names, parts, strict=False))


def by_column(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """The rows' columns, of which all rows have the same."""
    names = {frozenset(row) for row in rows}
    if len(names) > 1:
        raise InputError(
            f"the objects to ask about have different names: "
            f"{sorted(map(sorted, names))}; give all the same."
        )
    return {name: [row[name] for row in rows] for name in rows[0]}
