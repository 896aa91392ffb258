# SPDX-License-Identifier: Apache-2.0
"""Scores of a classifier's logits, computed on the host over the real examples."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int

from jft.types import InputError

Targets: TypeAlias = Int[np.ndarray, " B"]
Logits: TypeAlias = Float[np.ndarray, "B C"]
MetricFn: TypeAlias = Callable[[Targets, Logits], float]


def accuracy(targets: Targets, logits: Logits) -> float:
    """Share of examples whose highest logit is the target's."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(targets, logits.argmax(axis=-1)))


def balanced_accuracy(targets: Targets, logits: Logits) -> float:
    """Mean over the classes present in ``targets`` of the class's accuracy."""
    from sklearn.metrics import recall_score

    # balanced_accuracy_score warns about predicted classes that no target has.
    present = np.unique(targets)
    predictions = logits.argmax(axis=-1)
    return float(recall_score(targets, predictions, labels=present, average="macro"))


def macro_f1(targets: Targets, logits: Logits) -> float:
    """Mean of the F1 of every class that is a target or a prediction of some row."""
    from sklearn.metrics import f1_score

    predictions = logits.argmax(axis=-1)
    return float(f1_score(targets, predictions, average="macro", zero_division=0.0))


def matthews_correlation(targets: Targets, logits: Logits) -> float:
    """Correlation of targets and predictions in [-1, 1]; 0 is chance."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(targets, logits.argmax(axis=-1)))


def log_loss(targets: Targets, logits: Logits) -> float:
    """Mean of ``-log softmax(logits)[target]``, in nats and in float64.

    scikit-learn's takes probabilities and clips them, so it saturates at 36 nats.
    """
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    log_norm = np.log(np.exp(shifted).sum(axis=-1))
    return float((log_norm - shifted[np.arange(len(targets)), targets]).mean())


def top_3_accuracy(targets: Targets, logits: Logits) -> float:
    """Share of examples whose target is among the three highest logits."""
    return _top_k_accuracy(targets, logits, k=3)


def top_5_accuracy(targets: Targets, logits: Logits) -> float:
    """Share of examples whose target is among the five highest logits."""
    return _top_k_accuracy(targets, logits, k=5)


METRICS: dict[str, MetricFn] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "log_loss": log_loss,
    "macro_f1": macro_f1,
    "matthews_correlation": matthews_correlation,
    "top_3_accuracy": top_3_accuracy,
    "top_5_accuracy": top_5_accuracy,
}


def check_metric_names(names: Sequence[str]) -> None:
    """Refuse a name that is no metric, so that a run can stop before it trains.

    Raises:
      InputError: listing the unknown names and the known ones.
    """
    unknown = sorted(set(names) - set(METRICS))
    if unknown:
        raise InputError(
            f"unknown metrics {unknown}; known are {sorted(METRICS)}. Correct the name."
        )


def compute_metrics(
    targets: Targets, logits: Logits, *, metric_names: Sequence[str]
) -> dict[str, float]:
    """Score logits against targets; every row counts once.

    Logits that hold a NaN have no ranking, so every score is then NaN instead of the
    plausible number that ``argmax`` would give.

    Args:
      targets: class ids ``[B]`` of real examples only, without padding rows.
      logits: scores ``[B, C]``; no softmax applied.
      metric_names: keys of ``METRICS``.

    Returns:
      ``{metric name: score}`` in the order of ``metric_names``.

    Raises:
      InputError: for an unknown name, no example, or a target outside the classes.

    Example:
      >>> logits = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0], [0.0, 1.0]])
      >>> compute_metrics(np.array([0, 1, 0, 0]), logits, metric_names=["accuracy"])
      {'accuracy': 0.75}
    """
    check_metric_names(metric_names)
    if len(targets) == 0:
        raise InputError("no real example to score: the evaluation set is empty.")
    num_classes = logits.shape[-1]
    if targets.min() < 0 or targets.max() >= num_classes:
        raise InputError(
            f"targets lie in [{targets.min()}, {targets.max()}], but the logits have "
            f"{num_classes} classes, 0 to {num_classes - 1}. Use the head that was "
            "made for these classes."
        )
    if np.isnan(logits).any():
        return {name: float("nan") for name in metric_names}
    return {name: METRICS[name](targets, logits) for name in metric_names}


def _top_k_accuracy(targets: Targets, logits: Logits, *, k: int) -> float:
    from sklearn.metrics import top_k_accuracy_score

    num_classes = logits.shape[-1]
    if k >= num_classes:
        raise InputError(
            f"top_{k}_accuracy is always 1 for {num_classes} classes; it needs more "
            f"than {k}. Choose another metric."
        )
    classes = np.arange(num_classes)
    return float(top_k_accuracy_score(targets, logits, k=k, labels=classes))
