# SPDX-License-Identifier: Apache-2.0
"""What all tasks share that give an example any number of classes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jft.data import Column
from jft.evals import MULTILABEL_METRICS, class_f1s, plot_class_f1s
from jft.tasks import classification
from jft.tasks.task import Task
from jft.train import sigmoid_cross_entropy
from jft.types import Batch, LossFn


def make_task(
    *,
    name: str,
    inputs: tuple[Column, ...],
    head: str,
    make_fields: Callable[..., Any],
    pipeline: str,
) -> Task:
    """A task whose inputs have any number of classes."""
    return Task(
        name=name,
        inputs=inputs,
        target=Column("targets", "classes"),
        head=head,
        make_fields=make_fields,
        make_loss=make_loss,
        train_metrics={},
        predict=classification.predict,
        predictions=classification.predictions,
        references=classification.references,
        metrics=MULTILABEL_METRICS,
        default_metrics=("micro_f1", "macro_f1", "subset_accuracy"),
        write_prediction=write_prediction,
        pipeline=pipeline,
        problem_type="multi_label_classification",
        divergence="sigmoid",
        plot=plot,
        plot_name="classes.png",
    )


def make_loss(
    *, focal_gamma: float = 0.0, class_weights: np.ndarray | None = None
) -> LossFn:
    """Sigmoid cross-entropy of ``logits [B, C]`` against 0 and 1 ``[B, C]``.

    ``class_weights [C]`` weigh the examples that have the class.
    """

    def loss_fn(outputs: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        return sigmoid_cross_entropy(
            outputs,
            batch["targets"],
            loss_mask=batch["loss_mask"],
            focal_gamma=focal_gamma,
            pos_weight=class_weights,
        )

    return loss_fn


def write_prediction(logits: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """The classes above one half, and the probability of each class.

    >>> write_prediction(np.array([2.0, -2.0]), ["cat", "dog"])["classes"]
    ['cat']
    """
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    named = list(zip(class_names, probabilities, strict=True))
    return {
        "classes": [name for name, p in named if p > 0.5],
        "probabilities": {name: round(float(p), 6) for name, p in named},
    }


def plot(
    references: np.ndarray,
    predictions: np.ndarray,
    class_names: Sequence[str],
    to: Path,
) -> Path:
    """Draw how well each class is found."""
    counts = references.sum(axis=0).astype(int).tolist()
    f1s = class_f1s(references, predictions).tolist()
    scores = zip(f1s, counts, strict=True)
    return plot_class_f1s(dict(zip(class_names, scores, strict=True)), to)
