# SPDX-License-Identifier: Apache-2.0
"""What all tasks share that predict words: loss, perplexity, and what is kept."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jft import evals
from jft.data import Column
from jft.evals import MetricFn, Rows
from jft.tasks import classification
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
    **more: Any,
) -> Task:
    """A task that asks for words of the text; ``more`` are fields of a `Task`."""
    return Task(
        name=name,
        inputs=inputs,
        target=None,
        head=head,
        make_fields=make_fields,
        make_loss=make_loss,
        train_metrics={"token_accuracy": token_accuracy},
        predict=predict,
        predictions=predictions,
        references=references,
        metrics=METRICS,
        default_metrics=("perplexity", "token_accuracy"),
        write_prediction=write_prediction,
        pipeline=pipeline,
        divergence="softmax",
        packs=True,
        sums_tokens=True,
        **more,
    )


def make_loss(*, label_smoothing: float = 0.0) -> LossFn:
    """Cross-entropy of ``[B, L, V]`` against ``[B, L]``, a mean over tokens asked."""
    return classification.make_loss(label_smoothing=label_smoothing)


token_accuracy = classification.accuracy


def predict(outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
    """Keep three numbers a row ``[B, 3]``: nats, tokens right, tokens asked."""

    def count(logits: jax.Array, targets: jax.Array) -> jax.Array:
        nats, asked = softmax_cross_entropy(logits, targets)
        right, _ = count_correct(logits, targets)
        return jnp.stack([nats.astype(jnp.float32), right, asked.astype(jnp.float32)])

    return {"counts": jax.vmap(count)(outputs, batch["targets"])}


def predictions(rows: Rows, table: Table) -> np.ndarray:
    """The numbers of `predict`, ``[N, 3]``, summed over an example's rows of tokens."""
    counts = np.zeros((len(table.examples), 3))
    np.add.at(counts, table.example_of, np.stack(rows["counts"]).astype(np.float64))
    return counts


def references(table: Table) -> Sequence[Any]:
    """Nothing: the targets are the text's own words."""
    return [None] * len(table.examples)


def perplexity(references: Any, predictions: np.ndarray) -> float:
    """``exp`` of the mean cross-entropy a token asked.

    >>> perplexity(None, np.array([[2 * np.log(3.0), 0, 2]])).__round__(6)
    3.0
    """
    del references
    nats, _, asked = predictions.sum(axis=0)
    return evals.perplexity(nats, asked)


def accuracy(references: Any, predictions: np.ndarray) -> float:
    """Share of the tokens asked that are predicted."""
    del references
    _, right, asked = predictions.sum(axis=0)
    return float(right / asked) if asked else float("nan")


METRICS: Mapping[str, MetricFn] = {
    "perplexity": perplexity,
    "token_accuracy": accuracy,
}
DEFAULT_METRICS = ("perplexity", "token_accuracy")


def write_prediction(counts: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """How well the model expected the text; None where it was asked for no token.

    >>> write_prediction(np.zeros(3), ())
    {'perplexity': None}
    """
    del class_names
    asked = counts[2] > 0
    return {"perplexity": round(perplexity(None, counts[None]), 4) if asked else None}
