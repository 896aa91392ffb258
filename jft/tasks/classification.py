# SPDX-License-Identifier: Apache-2.0
"""What all tasks share that give an example, or its words, one of several classes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jft.data import Column
from jft.evals import CLASSIFICATION_METRICS, Rows, plot_confusion
from jft.tasks.task import Table, Task
from jft.train import count_correct, softmax_cross_entropy
from jft.types import Batch, LossFn


def make_task(
    *,
    name: str,
    inputs: tuple[Column, ...],
    head: str,
    make_fields: Callable[..., Any],
    pipeline: str,
) -> Task:
    """A task whose inputs have one class; the arguments are fields of a `Task`."""
    return Task(
        name=name,
        inputs=inputs,
        target=Column("targets", "class"),
        head=head,
        make_fields=make_fields,
        make_loss=make_loss,
        train_metrics={"accuracy": accuracy},
        predict=predict,
        predictions=predictions,
        references=references,
        metrics=CLASSIFICATION_METRICS,
        default_metrics=("accuracy", "macro_f1"),
        write_prediction=write_prediction,
        pipeline=pipeline,
        problem_type="single_label_classification",
        divergence="softmax",
        plot=plot,
        plot_name="confusion.png",
    )


def make_loss(
    *,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
    class_weights: np.ndarray | None = None,
) -> LossFn:
    """Cross-entropy of ``logits [B, …, C]`` against ``batch["targets"] [B, …]``."""

    def loss_fn(outputs: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        return softmax_cross_entropy(
            outputs,
            batch["targets"],
            loss_mask=batch["loss_mask"],
            label_smoothing=label_smoothing,
            focal_gamma=focal_gamma,
            class_weights=class_weights,
        )

    return loss_fn


def accuracy(outputs: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Share of the targets, one an example or a token, with the highest logit."""
    return count_correct(outputs, batch["targets"], loss_mask=batch["loss_mask"])


def predict(outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
    """Keep the logits ``[B, C]``."""
    del batch
    return {"logits": outputs}


def predictions(rows: Rows, table: Table) -> np.ndarray:
    """The logits ``[N, C]``."""
    del table
    return np.stack(rows["logits"])


def references(table: Table) -> np.ndarray:
    """The class ids ``[N]``."""
    return np.asarray(examples_of(table).targets)


def examples_of(table: Table) -> Any:
    """The examples of a table of tokens; a table of examples is theirs already."""
    return getattr(table, "examples", table)


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


def plot(
    references: np.ndarray,
    predictions: np.ndarray,
    class_names: Sequence[str],
    to: Path,
) -> Path:
    """Draw which class is taken for which."""
    return plot_confusion(references, predictions.argmax(axis=-1), class_names, to)
