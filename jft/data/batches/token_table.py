# SPDX-License-Identifier: Apache-2.0
"""Texts as tokens: tokenized once, the rows kept in a memory-mapped cache."""

import json
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from jft.data.batches.ragged import RaggedRows, RaggedWriter, Row, open_rows
from jft.data.fields.padding import Pad
from jft.data.fields.targets import example_name
from jft.data.fields.tokens import TextFieldsFn
from jft.data.sources.source import Example, digest
from jft.files import cache_folder
from jft.types import InputError

FORMAT = 1  # raise it when the same settings give other rows or files
CHUNK = 1000  # examples a call: enough for a fast tokenizer to use every core
EXAMPLE_OF = "@example"  # columns beside the fields; "@" is in no field's name
QUIET_SECONDS = 2.0  # shorter work shows no progress

RowChange = Callable[[Row], Row]  # of an unpadded row; must not write into its arrays


@runtime_checkable
class Readable(Protocol):
    """Things by position, such as examples; equal ones have an equal ``repr``."""

    def __len__(self) -> int:
        """Count them."""

    def __getitem__(self, index: int) -> Any:
        """Return one."""


class TokenTable:
    """The tokenized rows of examples; made by `tokenize`, or filled by `RowFiller`.

    ``table[i]`` is row ``i``: ``{field: int32 or float32 array}``, unpadded and
    read-only, model fields and host fields. Its arrays lie in memory-mapped files, so
    that a table takes no memory of its own and pickles as a path.
    """

    def __init__(
        self,
        rows: RaggedRows,
        examples: Readable,
        *,
        settings: Mapping[str, Any],
        padding: Mapping[str, Pad],
        padding_side: str = "right",
        host_fields: Collection[str] = (),
    ) -> None:
        self._rows = rows
        self.examples = examples
        self.settings = dict(settings)
        self.padding = dict(padding)
        self.padding_side = padding_side
        self.host_fields = tuple(host_fields)
        # of the model and of the host
        self.fields = tuple(name for name in rows.names if name[0] != "@")
        self.model_fields = tuple(n for n in self.fields if n not in self.host_fields)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._rows.row(index, self.fields)

    def read(self, index: int, change: RowChange | None = None) -> dict[str, Any]:
        """Return the model fields of a row, after a change of all its fields."""
        if change is None:
            return self._rows.row(index, self.model_fields)
        row = change(self[index])
        return {name: x for name, x in row.items() if name not in self.host_fields}

    def column(self, name: str) -> np.ndarray:
        """Return a field of all rows, one after the other."""
        return self._rows.values(name)

    @property
    def lengths(self) -> dict[str, np.ndarray]:
        """Tokens of each row, int32 [N], by group of `Pad`."""
        groups = [name[1:] for name in self._rows.names if name[0] == "@"]
        return {g: self._rows.values(f"@{g}") for g in groups if f"@{g}" != EXAMPLE_OF}

    @property
    def example_of(self) -> np.ndarray:
        """The position of each row's example in ``examples``, int32 [N], ascending."""
        return self._rows.values(EXAMPLE_OF)

    def name_of(self, index: int) -> str:
        """Return what a person can find a row's example by."""
        example = int(self.example_of[index])
        return str(example_name({"index": example, **self.examples[example]}))

    def __repr__(self) -> str:
        return f"TokenTable({len(self)} rows, {self._rows.folder.name})"


def tokenize(
    examples: Readable,
    fields_fn: TextFieldsFn,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    show_progress: bool = True,
) -> TokenTable:
    """Tokenize examples, or open what an earlier call has kept.

    The rows are streamed to files, so that memory does not grow with their number.
    They are kept in ``{cache_dir}/tokens/{key}``; the key is a digest of the examples'
    ``repr``, the function's class, settings and padding. A folder that is damaged or
    only half-written is written anew; two processes may write at once. Nothing is
    ever removed: to clear the cache delete its folder, or any folder in it.

    Args:
      examples: by position; equal examples have an equal ``repr``.
      fields_fn: called with up to 1,000 examples at a time.
      cache_dir: None is `jft.files.cache_folder`: ``$JFT_CACHE`` or
        ``~/.cache/jft``.
      show_progress: show a bar where it takes more than two seconds.

    Raises:
      InputError: if there is no example, if the examples have no ``repr`` of their
        own, if the cache cannot be written, or if a row is not what the function's
        ``padding`` promises; names the example.
    """
    if not len(examples):
        raise InputError(f"{examples!r} holds no example to tokenize.")
    if type(examples).__repr__ is object.__repr__:  # tells where it lies in memory
        raise InputError(
            f"{type(examples).__name__} has no __repr__ that tells its examples from "
            "others, so their tokens could be taken for others'. Give it one with a "
            "digest of its content, or use make_examples."
        )
    root = cache_folder() if cache_dir is None else Path(cache_dir)
    folder = root / "tokens" / _key(examples, fields_fn)
    rows = open_rows(folder)
    if rows is None:
        rows = _write(folder, examples, fields_fn, show_progress=show_progress)
    return TokenTable(
        rows,
        examples,
        settings=fields_fn.settings,
        padding=fields_fn.padding,
        padding_side=fields_fn.padding_side,
        host_fields=fields_fn.host_fields,
    )


def _key(examples: Readable, fields_fn: TextFieldsFn) -> str:
    kind = type(fields_fn)
    facts = {
        "format": FORMAT,
        "function": f"{kind.__module__}.{kind.__qualname__}",
        "settings": fields_fn.settings,
        "padding": {name: list(pad) for name, pad in fields_fn.padding.items()},
    }
    return digest([repr(examples), json.dumps(facts, sort_keys=True, default=dict)])


def _write(
    folder: Path, examples: Readable, fields_fn: TextFieldsFn, *, show_progress: bool
) -> RaggedRows:
    """Write beside the folder, then rename."""
    from tqdm.auto import tqdm

    partial = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with _disk(folder):
        partial.mkdir(parents=True)
    bar = tqdm(
        total=len(examples),
        desc="tokenizing",
        unit=" examples",
        disable=not show_progress,
        delay=QUIET_SECONDS,
        dynamic_ncols=True,
    )
    try:
        with bar, RaggedWriter(partial) as writer:
            for start in range(0, len(examples), CHUNK):
                stop = min(start + CHUNK, len(examples))
                rows = _rows_of(examples, range(start, stop), fields_fn)
                with _disk(folder):
                    writer.append(rows)
                bar.update(stop - start)
            with _disk(folder):
                writer.finish()
        return _publish(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _rows_of(
    examples: Readable, positions: range, fields_fn: TextFieldsFn
) -> list[dict[str, Any]]:
    """The rows of some examples, with the columns beside the fields."""
    chunk = [examples[i] for i in positions]
    made: list[list[dict[str, Any]]] = fields_fn(chunk)
    if len(made) != len(chunk):
        raise InputError(
            f"{type(fields_fn).__name__} made rows of {len(made)} examples out of "
            f"{len(chunk)}; it must return one list an example."
        )
    rows = []
    for position, example, of_example in zip(positions, chunk, made, strict=True):
        if not of_example:
            raise InputError(
                f"example {example_name({'index': position, **example})} gave no row; "
                f"{type(fields_fn).__name__} must return at least one."
            )
        for row in of_example:
            lengths = _lengths(row, fields_fn.padding, position, example)
            rows.append({**row, EXAMPLE_OF: position, **lengths})
    return rows


def _lengths(
    row: Row, padding: Mapping[str, Pad], position: int, example: Example
) -> dict[str, int]:
    """The length of each group, which its fields must share."""
    lengths: dict[str, int] = {}
    for name, pad in padding.items():
        if name not in row:
            continue
        length = len(row[name])
        if lengths.setdefault(f"@{pad.group}", length) != length:
            names = [n for n, p in padding.items() if p.group == pad.group and n in row]
            found = {n: len(row[n]) for n in names}
            raise InputError(
                f"example {example_name({'index': position, **example})} has fields of "
                f"the lengths {found}; those of the group {pad.group!r} must have one."
            )
    return lengths


def _publish(partial: Path, folder: Path) -> RaggedRows:
    """Rename to the final name, unless another process was faster."""
    if folder.exists() and open_rows(folder) is None:
        damaged = partial.with_name(f"{partial.name}.damaged")
        with suppress(OSError):  # another process may have moved it
            folder.rename(damaged)
        shutil.rmtree(damaged, ignore_errors=True)
    with suppress(OSError):  # what another process has just put there is as good
        partial.rename(folder)
        return RaggedRows(folder)
    rows = open_rows(folder)
    if rows is None:
        raise InputError(
            f"the tokens cannot be kept in {folder}. Delete it, or name another folder "
            "with JFT_CACHE."
        )
    return rows


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"the tokens cannot be kept in {folder.parent}: {error.strerror}. Make "
            "room there, or name another folder with JFT_CACHE."
        ) from error
