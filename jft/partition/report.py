# SPDX-License-Identifier: Apache-2.0
"""A table for people: what will train, from when on, and how fast."""

import posixpath
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jft import paths
from jft.partition.labels import is_trainable
from jft.types import Group, LayerIndex, ParamLabels, Params

_HEADER = ("layer", "parameters under", "label", "leaves", "params", "bytes", "lr ×")


def describe(
    params: Params,
    param_labels: ParamLabels,
    *,
    layer_index: LayerIndex,
    multiplier: Callable[[str], float] | None = None,
    open_at: Mapping[Group, Any] | None = None,
) -> str:
    """Print-ready table of what moves: one row a layer, label and multiplier.

    Args:
      params: arrays or ``ShapeDtypeStruct`` leaves.
      param_labels: the label tree.
      layer_index: maps a path to its depth.
      multiplier: maps a path to its learning-rate factor; None means 1.
      open_at: the step, or ``[start, stop)`` windows, from which a layer moves;
        None means from the start.

    Returns:
      The table, with sums at the bottom.
    """
    labels = paths.flatten(param_labels)
    rows: dict[tuple[int, str, float], list[tuple[str, Any]]] = {}
    for path, leaf in paths.flatten(params).items():
        moves = is_trainable(labels[path])
        rate = (multiplier(path) if multiplier else 1.0) if moves else 0.0
        rows.setdefault((layer_index(path), labels[path], rate), []).append(
            (path, leaf)
        )
    cells = [
        (
            str(layer),
            _common_prefix([path for path, _ in leaves]),
            label,
            f"{len(leaves):,}",
            f"{_sizes(leaves)[0]:,}",
            f"{_sizes(leaves)[1]:,}",
            f"{rate:.4g}" if is_trainable(label) else "-",
            _opens(layer, label, open_at),
        )
        for (layer, label, rate), leaves in sorted(rows.items())
    ]
    return _format((*_HEADER, "moves"), cells, _totals(rows))


def _totals(rows: Mapping[tuple[int, str, float], list[tuple[str, Any]]]) -> list[str]:
    lines = []
    for name, chosen in (
        ("trainable", [k for k in rows if is_trainable(k[1])]),
        ("frozen", [k for k in rows if not is_trainable(k[1])]),
        ("total", list(rows)),
    ):
        leaves = [leaf for k in chosen for leaf in rows[k]]
        count, size = _sizes(leaves)
        lines.append(
            f"{name:>9}: {count:,} parameters in {len(leaves)} leaves, {size:,} bytes"
        )
    return lines


def _sizes(leaves: Sequence[tuple[str, Any]]) -> tuple[int, int]:
    count = sum(int(leaf.size) for _, leaf in leaves)
    return count, sum(int(leaf.size) * leaf.dtype.itemsize for _, leaf in leaves)


def _common_prefix(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    return posixpath.commonpath(names) or "(several)"


def _opens(layer: int, label: str, open_at: Mapping[Group, Any] | None) -> str:
    if not is_trainable(label):
        return "never"
    opening = 0 if open_at is None else open_at[layer]
    if isinstance(opening, int):
        return f"from step {opening}" if opening else "from the start"
    spans = [f"{start}-{'end' if stop is None else stop}" for start, stop in opening]
    return "steps " + ", ".join(spans)


def _format(
    header: Sequence[str], rows: Sequence[Sequence[str]], footer: Sequence[str]
) -> str:
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    left = {1, 2, len(header) - 1}  # words to the left, numbers to the right

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([line(header), rule, *map(line, rows), rule, *footer])
