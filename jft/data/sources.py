# SPDX-License-Identifier: Apache-2.0
"""Random-access sources: what an example is before anything is done to it."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np

from jft.types import InputError

Example = Mapping[str, Any]  # field name -> value of one example


@runtime_checkable
class Source(Protocol):
    """Examples by position; picklable, and equal sources have an equal ``repr``."""

    class_names: tuple[str, ...]
    targets: np.ndarray  # int32 [N], known without reading an example

    def __len__(self) -> int:
        """Count the examples."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one example; an image is ``image`` uint8 [height, width, channels]."""


class ArraySource:
    """Examples held in memory.

    Args:
      fields: ``{name: array}`` whose first axis counts the examples; must hold
        ``targets``, whole numbers that index ``class_names``.
      class_names: a name for each class.

    Raises:
      InputError: if there are no examples, if the arrays differ in length, or if a
        target lies outside the classes.

    Example:
      >>> source = ArraySource({"targets": np.array([1, 0])}, class_names=("a", "b"))
      >>> len(source), int(source[0]["targets"])
      (2, 1)
    """

    def __init__(
        self, fields: Mapping[str, np.ndarray], *, class_names: Sequence[str]
    ) -> None:
        self.class_names = tuple(class_names)
        lengths = {name: len(values) for name, values in fields.items()}
        if "targets" not in fields or len(set(lengths.values())) != 1:
            raise InputError(
                "an ArraySource needs the field 'targets' and arrays of one length; "
                f"got lengths {lengths}. Give every example every field."
            )
        if not lengths["targets"]:
            raise InputError("an ArraySource needs at least one example; got none.")
        targets = np.asarray(fields["targets"])
        _check_targets(targets, self.class_names)
        self.targets = targets.astype(np.int32)
        self._fields = {**fields, "targets": self.targets}

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: values[index] for name, values in self._fields.items()}

    @cached_property
    def _digest(self) -> str:
        return digest(
            part
            for name, values in sorted(self._fields.items())
            for part in (name, str(values.dtype), str(values.shape), values)
        )

    def __repr__(self) -> str:
        return (
            f"ArraySource({len(self)} examples, {len(self.class_names)} classes, "
            f"{self._digest})"
        )


def digest(parts: Iterable[str | np.ndarray]) -> str:
    """Hash strings and arrays, in order, to 16 hexadecimal digits."""
    state = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, str):
            state.update(part.encode() + b"\0")
        else:
            state.update(np.ascontiguousarray(part).tobytes())
    return state.hexdigest()


def _check_targets(targets: np.ndarray, class_names: Sequence[str]) -> None:
    if targets.ndim != 1 or not np.issubdtype(targets.dtype, np.integer):
        raise InputError(
            f"targets must be whole numbers of shape [N]; got {targets.dtype} "
            f"{list(targets.shape)}. Give class ids, not names or one-hot rows."
        )
    outside = np.flatnonzero((targets < 0) | (targets >= len(class_names)))
    if len(outside):
        raise InputError(
            f"example {outside[0]} has target {targets[outside[0]]}, outside the "
            f"{len(class_names)} classes 0 to {len(class_names) - 1} "
            f"({len(outside)} such examples). Correct it or name more classes."
        )
