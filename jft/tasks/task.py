# SPDX-License-Identifier: Apache-2.0
"""What a task consists of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jft.types import LossFn


@dataclass(frozen=True, kw_only=True)
class Task:
    """Ties together fields, loss, metrics and how a prediction is written."""

    name: str
    fields: tuple[str, ...]  # of a batch, besides index and loss_mask
    make_loss: Callable[[float], LossFn]  # label smoothing -> loss
    train_metrics: Mapping[str, LossFn]  # cheap (sum, weight) ones, inside the step
    metric_names: tuple[str, ...]  # keys of jft.evals.METRICS, for evaluation
    write_prediction: Callable[[np.ndarray, Sequence[str]], dict[str, Any]]
