# SPDX-License-Identifier: Apache-2.0
"""Rows that cannot be used: the end of the run, or left out and told of."""

import numpy as np

from jft.data.sources.source import Source
from jft.types import InputError

ON_ERROR = ("error", "skip")


class BadRows:
    """What is wrong with the rows of a source; of each row what was found first.

    Args:
      source: of the rows.
      on_error: ``"error"`` or ``"skip"``.

    Raises:
      InputError: if ``on_error`` is neither.
    """

    def __init__(self, source: Source, on_error: str) -> None:
        if on_error not in ON_ERROR:
            raise InputError(
                f"on_error is {on_error!r}; expected one of {list(ON_ERROR)}."
            )
        self.source = source
        self.on_error = on_error
        self.rows: dict[int, str] = {}  # what is wrong, by row

    def add(self, row: int, column: str, what: object) -> None:
        """Note that a row cannot be used; ``what`` follows the place in a sentence."""
        if row not in self.rows:
            self.rows[row] = f"{self.source.where(row, column)} {what}"

    def settle(self) -> None:
        """Stop where the rows cannot be left out.

        Raises:
          InputError: says what is wrong with the first row, and how many there are.
        """
        if not self.rows:
            return
        first, bad, total = self.rows[min(self.rows)], len(self.rows), len(self.source)
        if self.on_error == "error":
            more = f" {bad} rows of {total} cannot be used;" if bad > 1 else ""
            raise InputError(f'{first}{more} on_error="skip" leaves such rows out.')
        if 2 * bad > total:
            raise InputError(
                f"{bad} rows of {total} cannot be used, which is too many to leave "
                f"out. The first: {first}"
            )

    def kept(self) -> np.ndarray:
        """Return the rows that can be used, int64 [N]."""
        usable = np.ones(len(self.source), bool)
        usable[list(self.rows)] = False
        return np.flatnonzero(usable)

    def messages(self) -> tuple[str, ...]:
        """Return a message a row that cannot be used, in the order of the rows."""
        return tuple(self.rows[row] for row in sorted(self.rows))
