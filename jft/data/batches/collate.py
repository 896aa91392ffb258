# SPDX-License-Identifier: Apache-2.0
"""From rows to a batch: stacked, or padded to given lengths."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jft.data.fields.padding import Pad
from jft.types import InputError


def stack_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Stack rows whose fields have one shape each.

    Raises:
      InputError: if a field has several shapes.
    """
    return {name: _stack(name, [row[name] for row in rows]) for name in rows[0]}


def pad_rows(
    rows: Sequence[Mapping[str, Any]],
    lengths: Mapping[str, int],
    *,
    padding: Mapping[str, Pad],
    padding_side: str = "right",
) -> dict[str, np.ndarray]:
    """Pad rows to given lengths and stack them.

    Args:
      rows: ``{field: array [length, …] or scalar}``.
      lengths: tokens of the batch, by group of `Pad`.
      padding: of the fields with a length axis; the others are stacked.
      padding_side: "right" or "left".

    Returns:
      ``{field: [B, L, …] or [B, …]}``.

    Raises:
      InputError: if a row is longer than the batch, or a field without padding has
        several shapes.

    Example:
      >>> rows = [{"input_ids": np.array([5, 6])}, {"input_ids": np.array([7])}]
      >>> pad_rows(rows, {"input": 3}, padding={"input_ids": Pad(0)})["input_ids"]
      array([[5, 6, 0],
             [7, 0, 0]])
    """
    batch = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        if name not in padding:
            batch[name] = _stack(name, values)
            continue
        value, group = padding[name]
        length = lengths[group]
        first = np.asarray(values[0])
        batch[name] = np.full((len(rows), length, *first.shape[1:]), value, first.dtype)
        for padded, x in zip(batch[name], values, strict=True):
            size = len(x)
            if size > length:
                raise InputError(
                    f"a row has {size} tokens of {name!r} and does not fit its batch, "
                    f"which has {length}. Cut it, or give a longer shape."
                )
            if padding_side == "left":
                padded[length - size :] = x
            else:
                padded[:size] = x
    return batch


def blank_like(row: Mapping[str, Any], padding: Mapping[str, Pad]) -> dict[str, Any]:
    """Return a row of padding alone, zeros where a field has no length."""
    return {
        name: x[:0] if name in padding else np.zeros_like(x) for name, x in row.items()
    }


def loss_mask(num_real: int, num_rows: int) -> np.ndarray:
    """Return 1 for the real rows, which come first, and 0 for the others, float32."""
    return (np.arange(num_rows) < num_real).astype(np.float32)


def _stack(name: str, values: Sequence[Any]) -> np.ndarray:
    shapes = {np.shape(x) for x in values}
    if len(shapes) > 1:
        raise InputError(
            f"examples of different shapes cannot form a batch: {name!r} has "
            f"{sorted(shapes)}. Resize or pad them to one shape in fields_fn."
        )
    return np.asarray(values) if () in shapes else np.stack(values)
