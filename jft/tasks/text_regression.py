# SPDX-License-Identifier: Apache-2.0
"""One text, or a pair of texts, one number."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jft.data import Column
from jft.evals import REGRESSION_METRICS
from jft.tasks import classification, regression, text_classification, texts
from jft.tasks.task import Task
from jft.train import squared_error
from jft.types import Batch, LossFn


def make_loss() -> LossFn:
    """Mean squared error of ``[B, 1]`` against ``batch["targets"] [B]``."""

    def loss_fn(outputs: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        return squared_error(outputs, batch["targets"], loss_mask=batch["loss_mask"])

    return loss_fn


def predict(outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
    """Keep the numbers ``[B]``."""
    del batch
    return {"values": outputs[:, 0]}


def write_prediction(
    value: np.floating[Any], class_names: Sequence[str]
) -> dict[str, Any]:
    """The number."""
    del class_names
    return {"value": round(float(value), 6)}


TASK = Task(
    name="text_regression",
    inputs=text_classification.INPUTS,
    target=Column("targets", "number"),
    head="sequence_classification",
    make_fields=texts.make_fields,
    make_loss=make_loss,
    train_metrics={},
    predict=predict,
    predictions=regression.predictions,
    references=classification.references,
    metrics=REGRESSION_METRICS,
    default_metrics=("pearson", "spearman", "rmse"),
    write_prediction=write_prediction,
    pipeline="text-classification",
    divergence="squared",
    problem_type="regression",
    plot=regression.plot,
    plot_name="values.png",
)
