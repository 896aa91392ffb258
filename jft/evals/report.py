# SPDX-License-Identifier: Apache-2.0
"""What a run writes down: metrics.jsonl, TensorBoard events, summary.json."""

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import jax
import numpy as np

from jft.files import write_text

Record = Mapping[str, Any]  # {"step": int, "split": str, **floats}


class MetricLog:
    """Appends records to ``metrics.jsonl`` and to TensorBoard events.

    Opening it makes both equal ``history``: what came after a resume point goes. The
    file is replaced at once; a kill leaves the old one or the new one.

    A record is ``{"step": int, "split": str, **numbers}`` and holds no clock time, so
    that the file of a resumed run equals an unbroken run's byte for byte. A line is on
    its way to the disk when ``write`` returns. Numbers that are not finite are written
    as ``null``, which every JSON reader takes. One process writes.

    Args:
      workdir: an existing folder; the events go to its ``tensorboard/``.
      history: the records so far; none for a new run.
    """

    def __init__(self, workdir: str | Path, history: Iterable[Record] = ()) -> None:
        from tensorboardX import SummaryWriter

        path, events = Path(workdir) / "metrics.jsonl", Path(workdir) / "tensorboard"
        records = list(history)
        write_text(path, "".join(_dumps(record) + "\n" for record in records))
        for old in events.glob("events.out.tfevents.*"):
            old.unlink()
        self._lines: TextIO = path.open("a", encoding="utf-8", buffering=1)
        self._events = SummaryWriter(str(events))
        for record in records:
            self._add_event(record)

    def write(self, record: Record) -> None:
        """Append one record."""
        self._lines.write(_dumps(record) + "\n")
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
    write_text(path, _dumps(summary, indent=2) + "\n")


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
