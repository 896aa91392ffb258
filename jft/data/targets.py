# SPDX-License-Identifier: Apache-2.0
"""What the fields of every modality share: the class, the position, the name."""

from typing import Any

import numpy as np

from jft.data.sources import Example
from jft.types import InputError


def target_fields(
    example: Example, *, num_classes: int | None
) -> dict[str, np.ndarray]:
    """Return ``targets`` and ``index``, int32 scalars, where the example has them.

    Args:
      example: of a source; ``targets`` is a class id.
      num_classes: targets must lie below; None leaves that check to the source.

    Raises:
      InputError: for a target outside the classes, by the example's name.

    Example:
      >>> target_fields({"targets": 1, "index": 5}, num_classes=2)
      {'index': array(5, dtype=int32), 'targets': array(1, dtype=int32)}
    """
    fields: dict[str, np.ndarray] = {}
    if "index" in example:
        fields["index"] = np.asarray(example["index"], np.int32)
    if "targets" in example:
        target = int(example["targets"])
        if target < 0 or (num_classes is not None and target >= num_classes):
            raise InputError(
                f"example {example_name(example)} has target {target}, outside the "
                f"{num_classes} classes of the model, counted from 0. Correct it, or "
                "give the model a head of that many classes."
            )
        fields["targets"] = np.asarray(target, np.int32)
    return fields


def example_name(example: Example) -> Any:
    """Return what a person can find an example by."""
    return example.get("id", example.get("index", "without id"))
