# SPDX-License-Identifier: Apache-2.0
"""What the fields of every modality share: the targets, the position, the name."""

from typing import Any

import numpy as np

from jft.data.sources.source import Example
from jft.types import InputError


def target_fields(
    example: Example, *, num_classes: int | None
) -> dict[str, np.ndarray]:
    """Return ``targets`` and ``index`` as arrays, where the example has them.

    Args:
      example: of `Examples`, with ``targets`` as one class id, as 1 or 0 for each of
        the classes [C], or as a number.
      num_classes: of the model: a class id must lie below, and there must be as many
        0 and 1; None leaves that check to the examples.

    Raises:
      InputError: for targets that are not of these classes, by the example's name.

    Example:
      >>> target_fields({"targets": 1, "index": 5}, num_classes=2)
      {'index': array(5, dtype=int32), 'targets': array(1, dtype=int32)}
      >>> target_fields({"targets": 0.5}, num_classes=1)
      {'targets': array(0.5, dtype=float32)}
    """
    fields: dict[str, np.ndarray] = {}
    if "index" in example:
        fields["index"] = np.asarray(example["index"], np.int32)
    if "targets" in example:
        targets = np.asarray(example["targets"])
        is_class = np.issubdtype(targets.dtype, np.integer)
        _check_classes(example, targets, num_classes)
        fields["targets"] = targets.astype(np.int32 if is_class else np.float32)
    return fields


def example_name(example: Example) -> Any:
    """Return what a person can find an example by."""
    return example.get("id", example.get("index", "without id"))


def _check_classes(
    example: Example, targets: np.ndarray, num_classes: int | None
) -> None:
    if targets.ndim and num_classes not in (None, len(targets)):
        raise InputError(
            f"example {example_name(example)} has 0 or 1 for {len(targets)} classes, "
            f"but the model has {num_classes}. Give the model a head of that many "
            "classes."
        )
    if targets.ndim or not np.issubdtype(targets.dtype, np.integer):
        return
    if targets < 0 or (num_classes is not None and targets >= num_classes):
        raise InputError(
            f"example {example_name(example)} has target {targets}, outside the "
            f"{num_classes} classes of the model, counted from 0. Correct it, or "
            "give the model a head of that many classes."
        )
