# SPDX-License-Identifier: Apache-2.0
"""Rows that cannot be read: an error, or left out and counted."""

from jft.types import InputError

KEPT_MESSAGES = 100


class Faults:
    """Raises the first fault, or keeps what rows that may be skipped lack.

    Args:
      on_error: ``"error"`` or ``"skip"``.

    Raises:
      InputError: for any other ``on_error``.

    Example:
      >>> faults = Faults("skip")
      >>> faults.add("a.csv, line 3 has 2 columns.")
      >>> faults.count, faults.messages
      (1, ['a.csv, line 3 has 2 columns.'])
    """

    def __init__(self, on_error: str) -> None:
        if on_error not in ("error", "skip"):
            raise InputError(f'on_error is "error" or "skip"; got {on_error!r}.')
        self.skips = on_error == "skip"
        self.messages: list[str] = []  # the first KEPT_MESSAGES
        self.count = 0

    def add(self, message: str) -> None:
        """Raise an InputError, or count a row and keep its message."""
        if not self.skips:
            raise InputError(message)
        self.count += 1
        if len(self.messages) < KEPT_MESSAGES:
            self.messages.append(message)

    def check_rows(self, path: object, num_rows: int, *, below: str = "") -> None:
        """Refuse a file of which no row is left.

        Args:
          path: of the file.
          num_rows: how many are left.
          below: where rows were expected, such as " below its header".
        """
        if not num_rows:
            why = f" Of {self.count} that were skipped: " if self.count else ""
            raise InputError(
                f"{path} has no row{below}; expected one example a row.{why}"
                f"{' '.join(self.messages[:1])}"
            )
