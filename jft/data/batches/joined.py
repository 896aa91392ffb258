# SPDX-License-Identifier: Apache-2.0
"""Two streams read as one: each batch carries one of another data set."""

import dataclasses
import sys
from dataclasses import dataclass
from typing import Any

from jft.data.batches.loader import TrainLoader
from jft.types import Batch


def join_loaders(loader: TrainLoader, other: TrainLoader, *, name: str) -> TrainLoader:
    """Put the batch that ``other`` has for a step into the field ``name`` of each.

    Batch ``i`` stays a pure function of both streams and ``i``, so that any step can
    start it; a checkpoint names both. Steps, epochs, shapes and padding are those of
    ``loader``.

    Args:
      loader: the stream of the task.
      other: the stream that goes along, best with batches of one shape: a step is
        compiled for each pair of them.
      name: of the field.

    Returns:
      The stream of both.
    """
    import grain

    joined = _Joined(loader.pipeline, other.pipeline, name)
    return dataclasses.replace(
        loader,
        pipeline=grain.MapDataset.range(sys.maxsize).map(joined),
        settings={**loader.settings, name: other.settings},
    )


@dataclass(frozen=True)
class _Joined:
    """Both batches of a step."""

    pipeline: Any
    other: Any
    name: str

    def __call__(self, step: int) -> Batch:
        return {**self.pipeline[step], self.name: self.other[step]}
