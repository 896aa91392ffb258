# SPDX-License-Identifier: Apache-2.0
"""What a run writes down: metrics.jsonl, TensorBoard events, summary.json, tables."""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import jax
import numpy as np

Record = Mapping[str, Any]  # {"step": int, "split": str, **floats}


class MetricLog:
    """Appends records to ``metrics.jsonl`` and to TensorBoard events.

    A record is ``{"step": int, "split": str, **numbers}`` and holds no clock time, so
    that the file of a resumed run equals an unbroken run's byte for byte. A line is on
    its way to the disk when ``write`` returns. Numbers that are not finite are written
    as ``null``, which every JSON reader takes. One process writes.

    Args:
      workdir: an existing folder; the events go to its ``tensorboard/``.
    """

    def __init__(self, workdir: str | Path) -> None:
        from tensorboardX import SummaryWriter

        self._path = Path(workdir) / "metrics.jsonl"
        self._events_dir = Path(workdir) / "tensorboard"
        self._lines: TextIO = self._path.open("a", encoding="utf-8", buffering=1)
        self._events = SummaryWriter(str(self._events_dir))

    def write(self, record: Record) -> None:
        """Append one record."""
        self._lines.write(_dumps(record) + "\n")
        self._add_event(record)

    def rewrite(self, history: Iterable[Record]) -> None:
        """Make file and events equal ``history``: what came after a resume point goes.

        The file is replaced at once; a kill leaves the old one or the new one.
        """
        from tensorboardX import SummaryWriter

        records = list(history)
        self.close()
        _replace(self._path, "".join(_dumps(record) + "\n" for record in records))
        for old in self._events_dir.glob("events.out.tfevents.*"):
            old.unlink()
        self._lines = self._path.open("a", encoding="utf-8", buffering=1)
        self._events = SummaryWriter(str(self._events_dir))
        for record in records:
            self._add_event(record)

    def close(self) -> None:
        """Flush and close both."""
        self._lines.close()
        self._events.close()

    def _add_event(self, record: Record) -> None:
        for name, value in record.items():
            if name not in ("step", "split"):
                tag = f"{record['split']}/{name}"
                self._events.add_scalar(tag, float(value), int(record["step"]))

    def __enter__(self) -> "MetricLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def write_summary(path: str | Path, summary: Mapping[str, Any]) -> None:
    """Write a summary as indented JSON, keys in the given order, whole or not at all.

    numpy and jax scalars and arrays become numbers and lists, paths become strings,
    and numbers that are not finite ``null``.
    """
    _replace(Path(path), _dumps(summary, indent=2) + "\n")


def format_table(
    rows: Sequence[Sequence[Any]],
    headers: Sequence[str],
    *,
    footer: Sequence[Any] | None = None,
) -> str:
    """Lay out a plain text table; columns of numbers are aligned to the right.

    Integers get thousands separators, floats four significant digits, ``None`` is
    left blank.

    Args:
      rows: one sequence of cells a row.
      headers: one name a column.
      footer: a last row below a rule, such as sums.

    Returns:
      The table without a final newline.

    Example:
      >>> print(format_table([["head", 650], ["block 0", 49984]], ["part", "params"]))
      part     params
      ───────  ──────
      head        650
      block 0  49,984
    """
    body = [*rows, *([footer] if footer is not None else [])]
    texts = [[_cell(value) for value in row] for row in body]
    assert all(len(row) == len(headers) for row in texts), "a cell for every column"
    lines = [list(headers), *texts]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    numeric = [all(map(_is_number_or_blank, col)) for col in zip(*body, strict=True)]
    numeric = numeric or [False] * len(headers)

    def layout(row: Sequence[str]) -> str:
        cells = zip(row, widths, numeric, strict=True)
        return "  ".join(t.rjust(w) if n else t.ljust(w) for t, w, n in cells).rstrip()

    rule = "  ".join("─" * width for width in widths)
    out = [layout(headers), rule, *(layout(row) for row in texts)]
    if footer is not None:
        out.insert(len(out) - 1, rule)
    return "\n".join(out)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    return str(value)


def _is_number_or_blank(value: Any) -> bool:
    number = isinstance(value, int | float | np.integer | np.floating)
    return value is None or (number and not isinstance(value, bool))


def _dumps(value: Any, *, indent: int | None = None) -> str:
    return json.dumps(_plain(value), indent=indent, allow_nan=False, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Turn a value into what strict JSON can hold."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        return _plain(np.asarray(value).tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _replace(path: Path, text: str) -> None:
    """Write a file beside its place, then rename it into place."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
