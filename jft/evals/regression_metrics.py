# SPDX-License-Identifier: Apache-2.0
"""Scores of one number an example: ``targets [N]`` against ``values [N]``."""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from jft.evals.scoring import Metric, MetricFn

Values: TypeAlias = Float[np.ndarray, " N"]


def pearson(targets: Values, values: Values) -> float:
    """Linear correlation in [-1, 1]; NaN where either side is constant."""
    from scipy.stats import pearsonr

    if _is_constant(targets) or _is_constant(values):
        return float("nan")
    return float(pearsonr(*_float64(targets, values)).statistic)


def spearman(targets: Values, values: Values) -> float:
    """Correlation of the ranks in [-1, 1]; NaN where either side is constant."""
    from scipy.stats import spearmanr

    if _is_constant(targets) or _is_constant(values):
        return float("nan")
    return float(spearmanr(*_float64(targets, values)).statistic)


def rmse(targets: Values, values: Values) -> float:
    """Root of the mean squared error, in the unit of the targets."""
    from sklearn.metrics import root_mean_squared_error

    return float(root_mean_squared_error(*_float64(targets, values)))


def mae(targets: Values, values: Values) -> float:
    """Mean absolute error, in the unit of the targets."""
    from sklearn.metrics import mean_absolute_error

    return float(mean_absolute_error(*_float64(targets, values)))


def r2(targets: Values, values: Values) -> float:
    """Share of the targets' variance that is explained; below 0 worse than their mean.

    NaN where the targets are constant (scikit-learn gives 0, or 1 for a perfect fit).
    """
    from sklearn.metrics import r2_score

    if _is_constant(targets):
        return float("nan")
    return float(r2_score(*_float64(targets, values)))


REGRESSION_METRICS: Mapping[str, MetricFn] = {
    "mae": Metric(mae),
    "pearson": Metric(pearson),
    "r2": Metric(r2),
    "rmse": Metric(rmse),
    "spearman": Metric(spearman),
}


def _is_constant(values: Values) -> bool:
    return bool((values == values[0]).all())


def _float64(*arrays: Values) -> tuple[np.ndarray, ...]:
    return tuple(array.astype(np.float64) for array in arrays)
