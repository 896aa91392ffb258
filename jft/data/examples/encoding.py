# SPDX-License-Identifier: Apache-2.0
"""Targets of all examples as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

import numpy as np


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of different lengths, kept one after the other.

    >>> encode_rows([[1, 2], [], [3]], 4)[0]
    array([1, 2], dtype=int32)
    """

    values: np.ndarray  # int32 [total]
    offsets: np.ndarray  # int64 [N + 1]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        start, stop = self.offsets[:-1][index], self.offsets[1:][index]
        return self.values[start:stop]


Encoded: TypeAlias = np.ndarray | Ragged


def encode_ids(ids: Sequence[int], num_classes: int) -> np.ndarray:
    """Return class ids, int32 [N]."""
    return np.array(ids, np.int32)


def encode_numbers(numbers: Sequence[float], num_classes: int) -> np.ndarray:
    """Return numbers, float32 [N]."""
    return np.array(numbers, np.float32)


def encode_sets(rows: Sequence[Sequence[int]], num_classes: int) -> np.ndarray:
    """Return 1 for each class of a row and 0 for the others, float32 [N, C].

    >>> encode_sets([[2, 0], []], 3)
    array([[1., 0., 1.],
           [0., 0., 0.]], dtype=float32)
    """
    encoded = np.zeros((len(rows), num_classes), np.float32)
    ragged = encode_rows(rows, num_classes)
    encoded[np.repeat(np.arange(len(rows)), np.diff(ragged.offsets)), ragged.values] = 1
    return encoded


def encode_rows(rows: Sequence[Sequence[int]], num_classes: int) -> Ragged:
    """Return class ids, several a row."""
    offsets = np.cumsum([0, *map(len, rows)])
    values = np.fromiter(chain.from_iterable(rows), np.int32, int(offsets[-1]))
    return Ragged(values, offsets)
