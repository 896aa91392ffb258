# SPDX-License-Identifier: Apache-2.0
"""A table for people: what will train, from when on, and how fast."""

import posixpath
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jft import paths
from jft.params.quantised import num_numbers
from jft.partition.labels import is_trainable, label_of_paths
from jft.tables import format_table
from jft.types import FROZEN, Group, InputError, LayerIndex, ParamLabels, Params

Row = tuple[int, str, float]  # layer, label, learning-rate multiplier
Leaf = tuple[str, Any]  # path, array or shape

_HEADERS = (
    "layer",
    "parameters under",
    "label",
    "leaves",
    "params",
    "bytes",
    "lr ×",
    "moves",
)


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

    Raises:
      InputError: if the labels do not fit the parameters, or ``open_at`` lacks a layer
        that moves.
    """
    labels = label_of_paths(params, param_labels)
    rows: dict[Row, list[Leaf]] = {}
    for path, leaf in paths.flatten(params).items():
        moves = is_trainable(labels[path])
        rate = (multiplier(path) if multiplier else 1.0) if moves else 0.0
        rows.setdefault((layer_index(path), labels[path], rate), []).append(
            (path, leaf)
        )
    table = [
        (
            layer,
            _common_prefix([path for path, _ in leaves]),
            label,
            len(leaves),
            *_sizes(leaves),
            rate if is_trainable(label) else None,
            _opens(layer, rate, open_at),
        )
        for (layer, label, rate), leaves in sorted(rows.items())
    ]
    return "\n".join([format_table(table, _HEADERS), *_totals(rows)])


def _totals(rows: Mapping[Row, Sequence[Leaf]]) -> list[str]:
    """Sums of what trains, what does not, and all."""
    parts: dict[str, list[Leaf]] = {"trainable": [], "frozen": [], "total": []}
    for (_, label, _), leaves in rows.items():
        parts["trainable" if is_trainable(label) else "frozen"] += leaves
        parts["total"] += leaves
    lines = []
    for name, leaves in parts.items():
        count, size = _sizes(leaves)
        lines.append(
            f"{name:>9}: {count:,} parameters in {len(leaves)} leaves, {size:,} bytes"
        )
    return lines


def _sizes(leaves: Sequence[Leaf]) -> tuple[int, int]:
    count = sum(num_numbers(path, leaf) for path, leaf in leaves)
    return count, sum(int(leaf.size) * leaf.dtype.itemsize for _, leaf in leaves)


def _common_prefix(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    return posixpath.commonpath(names) or "(several)"


def _opens(layer: int, rate: float, open_at: Mapping[Group, Any] | None) -> str:
    if rate == 0:
        return "never"
    if open_at is not None and layer not in open_at:
        raise InputError(
            f"open_at says of the layers {sorted(map(str, open_at))} when they open; "
            f"layer {layer} moves too. Say when, or make its labels {FROZEN!r}."
        )
    opening = 0 if open_at is None else open_at[layer]
    if isinstance(opening, int):
        return f"from step {opening}" if opening else "from the start"
    spans = [f"{start}-{'end' if stop is None else stop}" for start, stop in opening]
    return "steps " + ", ".join(spans)
