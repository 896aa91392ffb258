# SPDX-License-Identifier: Apache-2.0
"""What all tasks share that give an example one of several classes."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jft.train import count_correct, softmax_cross_entropy
from jft.types import Batch, LossFn

METRIC_NAMES = ("accuracy", "macro_f1")


def make_loss(label_smoothing: float = 0.0) -> LossFn:
    """Cross-entropy of ``logits [B, C]`` against ``batch["targets"] [B]``."""

    def loss_fn(outputs: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        return softmax_cross_entropy(
            outputs,
            batch["targets"],
            loss_mask=batch["loss_mask"],
            label_smoothing=label_smoothing,
        )

    return loss_fn


def accuracy(outputs: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Share of examples whose highest logit is the target's."""
    return count_correct(outputs, batch["targets"], loss_mask=batch["loss_mask"])


def write_prediction(logits: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """The predicted class, its probability, and the probability of each class.

    >>> write_prediction(np.array([0.0, 0.0]), ["cat", "dog"])["probability"]
    0.5
    """
    scores = np.exp(logits.astype(np.float64) - logits.max())
    probabilities = scores / scores.sum()
    best = int(probabilities.argmax())
    return {
        "class": class_names[best],
        "probability": round(float(probabilities[best]), 6),
        "probabilities": {
            name: round(float(p), 6)
            for name, p in zip(class_names, probabilities, strict=True)
        },
    }
