# SPDX-License-Identifier: Apache-2.0
"""A request to stop, from Ctrl-C or SIGTERM, as a flag that loops ask for."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from jft import processes


class StopSignal:
    """A context in which SIGINT and SIGTERM only set ``requested``.

    Training, evaluation and compilation loops ask for it between two batches, so
    that the state is saved at a whole step. A second SIGINT raises
    KeyboardInterrupt at once. Leaving restores the handlers that were there before.
    Python delivers signals to its main thread only: in any other thread, entering
    changes nothing and ``requested`` stays False.

    Example:
      >>> with StopSignal() as stop:
      ...     signal.raise_signal(signal.SIGTERM)
      ...     stop.requested, stop.name
      (True, 'SIGTERM')
    """

    def __init__(self) -> None:
        self.name: str | None = None  # of the first signal that came
        self._vote = processes.Vote()
        self._previous: dict[int, Callable[..., Any] | int | None] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has asked this process to stop."""
        return self.name is not None

    def poll(self) -> bool:
        """Whether any process of the run was asked to stop. Collective.

        All processes get the same answer, so that they stop at the same place. Of
        several, it comes one call late: see `jft.processes.Vote`.
        """
        return self._vote(self.requested)

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            # None: it was not set from Python and cannot be put back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = self.name or signal.Signals(number).name
