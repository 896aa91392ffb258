# SPDX-License-Identifier: Apache-2.0
"""What a metric is, and how predictions are scored with several of them.

The metrics themselves lie in plain dicts, one a kind of task: `CLASSIFICATION_METRICS`,
`MULTILABEL_METRICS`, `REGRESSION_METRICS`, `TAGGING_METRICS`, `ANSWER_METRICS`,
`TEXT_METRICS` and `EMBEDDING_METRICS`. All of them run on the host, over the real
examples only, each counted once.
"""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from jft.types import InputError

# (references, predictions), one of each an example -> score
MetricFn: TypeAlias = Callable[[Any, Any], float]


@dataclass(frozen=True)
class Metric:
    """A `MetricFn` that is NaN, not a plausible number, where nothing can be scored.

    That is without any example, and for arrays of predictions that are not all finite:
    they have no ranking, but ``argmax`` would give one.

    >>> share = Metric(lambda references, predictions: 0.5)
    >>> share([1, 2], [3, 4]), share([], []), share([1], np.array([np.nan]))
    (0.5, nan, nan)
    """

    score_fn: MetricFn
    package: str | None = None  # what it needs of the extra `text`

    def __call__(self, references: Any, predictions: Any) -> float:
        """Score predictions against references.

        Raises:
          InputError: if there are not as many of one as of the other.
        """
        if len(references) != len(predictions):
            raise InputError(
                f"there are {len(references)} references for {len(predictions)} "
                "predictions; expected one prediction an example."
            )
        if len(references) == 0 or not _is_finite(predictions):
            return float("nan")
        return float(self.score_fn(references, predictions))


def check_metric_names(names: Sequence[str], metrics: Mapping[str, MetricFn]) -> None:
    """Refuse metrics that cannot be computed, so that a run stops before it trains.

    Args:
      names: those asked for.
      metrics: those of the task.

    Raises:
      InputError: listing the unknown names and the known ones, or the packages that
        are absent and how to install them.

    Example:
      >>> from jft.evals.regression_metrics import REGRESSION_METRICS
      >>> check_metric_names(["rmse", "r2"], REGRESSION_METRICS)
    """
    unknown = sorted(set(names) - metrics.keys())
    if unknown:
        raise InputError(
            f"unknown metrics {unknown}; known for this task are {sorted(metrics)}. "
            "Correct the name."
        )
    chosen = {name: metrics[name] for name in names}
    packages = {
        name: metric.package
        for name, metric in chosen.items()
        if isinstance(metric, Metric) and metric.package
    }
    absent = {p for p in packages.values() if importlib.util.find_spec(p) is None}
    if absent:
        raise InputError(
            f"the metrics {sorted(n for n, p in packages.items() if p in absent)} need "
            f"{sorted(absent)}, which this Python lacks: install the extra `text` "
            "(pip install 'jft[text]') or choose other metrics."
        )


def compute_scores(
    references: Any,
    predictions: Any,
    *,
    metrics: Mapping[str, MetricFn],
    names: Sequence[str],
) -> dict[str, float]:
    """Score predictions with the metrics of these names, in their order.

    Args:
      references: what is right, one an example; its form is the kind's.
      predictions: what the model says, in the same order.
      metrics: those of the task.
      names: which of them.

    Returns:
      ``{name: score}``.

    Raises:
      InputError: as `check_metric_names`, and for lengths that differ.

    Example:
      >>> from jft.evals.regression_metrics import REGRESSION_METRICS
      >>> references, values = np.array([1.0, 2.0]), np.array([1.0, 4.0])
      >>> names = ["mae", "rmse"]
      >>> scores = compute_scores(
      ...     references, values, metrics=REGRESSION_METRICS, names=names
      ... )
      >>> {name: round(score, 3) for name, score in scores.items()}
      {'mae': 1.0, 'rmse': 1.414}
    """
    check_metric_names(names, metrics)
    return {name: metrics[name](references, predictions) for name in names}


def _is_finite(predictions: Any) -> bool:
    if not isinstance(predictions, np.ndarray) or predictions.dtype.kind != "f":
        return True
    return bool(np.isfinite(predictions).all())
