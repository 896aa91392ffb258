# SPDX-License-Identifier: Apache-2.0
"""The records of a run: what was measured at which step."""

from typing import Any

from jft import evals, processes, train
from jft.config import Workdir


class Records:
    """Adds them to a history, metrics.jsonl and the TensorBoard events.

    The main process alone writes, and its files begin as the history is; open it by
    ``with``.
    """

    def __init__(self, workdir: Workdir, history: train.History) -> None:
        self._log: evals.MetricLog | None = None
        if processes.is_main():
            self._log = evals.MetricLog(workdir.path, history)

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *error: Any) -> None:
        if self._log is not None:
            self._log.close()

    def add(self, history: train.History, record: train.Record) -> None:
        """Add a record.

        What follows from the history is decided in each process, so all of them keep
        the main one's numbers, whatever another processor may round otherwise.
        """
        kept = processes.from_main(lambda: record)
        history.append(kept)
        if self._log is not None:
            self._log.write(kept)
