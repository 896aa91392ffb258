# SPDX-License-Identifier: Apache-2.0
"""Scores of any number of classes an example: ``targets [N, C]``, ``logits [N, C]``.

Targets are 1 where a class holds, else 0; it is predicted where its logit is above 0,
that is its probability above a half.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from jft.evals.scoring import Metric, MetricFn

Targets: TypeAlias = Float[np.ndarray, "N C"]
Logits: TypeAlias = Float[np.ndarray, "N C"]


def micro_f1(targets: Targets, logits: Logits) -> float:
    """F1 over all entries, so that frequent classes count more."""
    from sklearn.metrics import f1_score

    return float(f1_score(targets, logits > 0, average="micro", zero_division=0.0))


def macro_f1(targets: Targets, logits: Logits) -> float:
    """Mean of `class_f1s`; a class that is never a target and never predicted has 0."""
    return float(class_f1s(targets, logits).mean())


def class_f1s(targets: Targets, logits: Logits) -> Float[np.ndarray, " C"]:
    """F1 of each class; 0 where it is never a target and never predicted."""
    from sklearn.metrics import f1_score

    scores = [
        f1_score(truth, predicted, zero_division=0.0)
        for truth, predicted in zip(targets.T, (logits > 0).T, strict=True)
    ]
    return np.asarray(scores, np.float64)


def subset_accuracy(targets: Targets, logits: Logits) -> float:
    """Share of examples that have every class right."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(targets, logits > 0))


def mean_average_precision(targets: Targets, logits: Logits) -> float:
    """Mean over the classes of scikit-learn's average precision.

    Classes without any positive example have no precision at any recall; they are left
    out of the mean (scikit-learn gives them 0, with a warning).
    """
    from sklearn.metrics import average_precision_score

    some = np.any(targets, axis=0)
    return _mean_over(some, average_precision_score, targets, logits)


def roc_auc(targets: Targets, logits: Logits) -> float:
    """Mean over the classes of the area under the ROC curve.

    Over the classes that have positive and negative examples; for others it is not
    defined.
    """
    from sklearn.metrics import roc_auc_score

    both = np.any(targets, axis=0) & ~np.all(targets, axis=0)
    return _mean_over(both, roc_auc_score, targets, logits)


MULTILABEL_METRICS: Mapping[str, MetricFn] = {
    "macro_f1": Metric(macro_f1),
    "mean_average_precision": Metric(mean_average_precision),
    "micro_f1": Metric(micro_f1),
    "roc_auc": Metric(roc_auc),
    "subset_accuracy": Metric(subset_accuracy),
}


def _mean_over(
    chosen: np.ndarray,
    score_fn: Callable[[np.ndarray, np.ndarray], float],
    targets: Targets,
    logits: Logits,
) -> float:
    """Mean of the scores of the chosen classes; NaN if there is none."""
    classes = np.flatnonzero(chosen)
    scores = [score_fn(targets[:, c], logits[:, c]) for c in classes]
    return float(np.mean(scores)) if scores else float("nan")
