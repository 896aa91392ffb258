# SPDX-License-Identifier: Apache-2.0
"""Scores of one class an example: ``targets [N]`` against ``logits [N, C]``.

The predicted class is the one with the highest logit. Unless said otherwise they are
scikit-learn's of the same name, in [0, 1].
"""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int

from jft.evals.scoring import Metric, MetricFn
from jft.types import InputError

Targets: TypeAlias = Int[np.ndarray, " N"]
Logits: TypeAlias = Float[np.ndarray, "N C"]


def accuracy(targets: Targets, logits: Logits) -> float:
    """Share of examples whose highest logit is the target's."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(targets, _predict(targets, logits)))


def balanced_accuracy(targets: Targets, logits: Logits) -> float:
    """Mean over the classes present in ``targets`` of the class's accuracy."""
    from sklearn.metrics import recall_score

    # balanced_accuracy_score warns about predicted classes that no target has.
    present = np.unique(targets)
    predictions = _predict(targets, logits)
    return float(recall_score(targets, predictions, labels=present, average="macro"))


def f1(targets: Targets, logits: Logits) -> float:
    """F1 of class 1 of two; 0 where no example has it and none is given it."""
    from sklearn.metrics import f1_score

    num_classes = logits.shape[-1]
    if num_classes != 2:
        raise InputError(
            f"f1 is that of class 1 of two, but there are {num_classes} classes. "
            "Choose macro_f1 or weighted_f1."
        )
    return float(f1_score(targets, _predict(targets, logits), zero_division=0.0))


def macro_f1(targets: Targets, logits: Logits) -> float:
    """Mean of the F1 of every class that is a target or a prediction of some row."""
    from sklearn.metrics import f1_score

    predictions = _predict(targets, logits)
    return float(f1_score(targets, predictions, average="macro", zero_division=0.0))


def weighted_f1(targets: Targets, logits: Logits) -> float:
    """Mean of the F1 of the classes, each weighted by how many targets it has."""
    from sklearn.metrics import f1_score

    predictions = _predict(targets, logits)
    return float(f1_score(targets, predictions, average="weighted", zero_division=0.0))


def matthews_correlation(targets: Targets, logits: Logits) -> float:
    """Correlation of targets and predictions in [-1, 1]; 0 is chance."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(targets, _predict(targets, logits)))


def log_loss(targets: Targets, logits: Logits) -> float:
    """Mean of ``-log softmax(logits)[target]``, in nats and in float64.

    scikit-learn's takes probabilities and clips them, so it saturates at 36 nats.
    """
    _check_range(targets, logits)
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    log_norm = np.log(np.exp(shifted).sum(axis=-1))
    return float((log_norm - shifted[np.arange(len(targets)), targets]).mean())


def top_3_accuracy(targets: Targets, logits: Logits) -> float:
    """Share of examples whose target is among the three highest logits."""
    return _top_k_accuracy(targets, logits, k=3)


def top_5_accuracy(targets: Targets, logits: Logits) -> float:
    """Share of examples whose target is among the five highest logits."""
    return _top_k_accuracy(targets, logits, k=5)


CLASSIFICATION_METRICS: Mapping[str, MetricFn] = {
    "accuracy": Metric(accuracy),
    "balanced_accuracy": Metric(balanced_accuracy),
    "f1": Metric(f1),
    "log_loss": Metric(log_loss),
    "macro_f1": Metric(macro_f1),
    "matthews_correlation": Metric(matthews_correlation),
    "top_3_accuracy": Metric(top_3_accuracy),
    "top_5_accuracy": Metric(top_5_accuracy),
    "weighted_f1": Metric(weighted_f1),
}


def _predict(targets: Targets, logits: Logits) -> np.ndarray:
    _check_range(targets, logits)
    return np.asarray(logits.argmax(axis=-1))


def _check_range(targets: Targets, logits: Logits) -> None:
    num_classes = logits.shape[-1]
    if targets.min() < 0 or targets.max() >= num_classes:
        raise InputError(
            f"targets lie in [{targets.min()}, {targets.max()}], but the logits have "
            f"{num_classes} classes, 0 to {num_classes - 1}. Use the head that was "
            "made for these classes."
        )


def _top_k_accuracy(targets: Targets, logits: Logits, *, k: int) -> float:
    from sklearn.metrics import top_k_accuracy_score

    _check_range(targets, logits)
    num_classes = logits.shape[-1]
    if k >= num_classes:
        raise InputError(
            f"top_{k}_accuracy is always 1 for {num_classes} classes; it needs more "
            f"than {k}. Choose another metric."
        )
    classes = np.arange(num_classes)
    return float(top_k_accuracy_score(targets, logits, k=k, labels=classes))
