# SPDX-License-Identifier: Apache-2.0
"""Plain text tables for people."""

from collections.abc import Sequence
from typing import Any

import numpy as np


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
