# SPDX-License-Identifier: Apache-2.0
"""What a task consists of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from jft.data import FieldsFn
from jft.types import LossFn


@runtime_checkable  # so that annotations can be checked under pytest
class MakeFields(Protocol):
    """How examples become fields, given what the model prepares its inputs with."""

    def __call__(
        self, processor: Any, *, num_classes: int | None, max_length: int
    ) -> FieldsFn:
        """Return ``example -> fields``; ``max_length`` is in tokens."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Ties together fields, head, loss, metrics and how a prediction is written."""

    name: str
    input: str  # what of an example the model sees: "image", "text"
    head: str  # the head's name, a key of a family's ``heads``
    fields: tuple[str, ...]  # of every batch, besides index and loss_mask
    make_fields: MakeFields
    make_loss: Callable[[float], LossFn]  # label smoothing -> loss
    train_metrics: Mapping[str, LossFn]  # cheap (sum, weight) ones, inside the step
    metric_names: tuple[str, ...]  # keys of jft.evals.METRICS, for evaluation
    write_prediction: Callable[[np.ndarray, Sequence[str]], dict[str, Any]]
    pipeline: str  # what the Hub calls it; a key of jft.export.card.PIPELINES
