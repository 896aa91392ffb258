# SPDX-License-Identifier: Apache-2.0
"""What the values of settings may be: numbers within limits, and options by name."""

from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple, TypeAlias


class Range(NamedTuple):
    """The limits of a number; ``minimum`` and ``maximum`` are themselves allowed."""

    minimum: int | float | None = None
    maximum: int | float | None = None
    above: int | float | None = None  # exclusive minimum
    below: int | float | None = None  # exclusive maximum

    def holds(self, value: int | float) -> bool:
        """Return whether the value lies inside."""
        return (
            (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        words = ("at least", "at most", "above", "below")
        limits = zip(words, self, strict=True)
        return " and ".join(f"{word} {x}" for word, x in limits if x is not None)


Count: TypeAlias = Annotated[int, Range(minimum=1)]
Whole: TypeAlias = Annotated[int, Range(minimum=0)]
Positive: TypeAlias = Annotated[float, Range(above=0)]
NonNegative: TypeAlias = Annotated[float, Range(minimum=0)]
Fraction: TypeAlias = Annotated[float, Range(minimum=0, below=1)]
Dtype: TypeAlias = Literal["float32", "bfloat16", "float64"]
Option: TypeAlias = (
    bool
    | int
    | float
    | str
    | tuple[str, ...]
    | tuple[float, ...]
    | tuple[tuple[str, int | float], ...]
    | None
)
Options: TypeAlias = Mapping[str, Option | Mapping[str, str | int | float]]
