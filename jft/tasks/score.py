# SPDX-License-Identifier: Apache-2.0
"""From the rows of an evaluation to the metrics of a task."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jft.evals import Evaluated
from jft.tasks.task import Data, Task
from jft.types import InputError

# Every other metric is better when it is larger.
LOWER_IS_BETTER = frozenset({"loss", "log_loss", "perplexity", "rmse", "mae"})


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scores of a model on a set, and what they were computed from."""

    scores: dict[str, float]  # "loss" and each metric
    num_examples: int  # N
    references: Sequence[Any]  # one an example
    predictions: Sequence[Any]  # the same


def score(
    task: Task,
    evaluated: Evaluated,
    source: Data,
    *,
    metric_names: Sequence[str] | None = None,
) -> Evaluation:
    """Score what `jft.evals.evaluate` returned.

    Args:
      task: whose metrics are meant.
      evaluated: of every row of ``source``.
      source: the examples, or the table of their tokens, that the batches are from.
      metric_names: of ``task.metrics``; None are the task's default ones.

    Raises:
      InputError: for an unknown metric; lists the known ones.
    """
    names = check_metric_names(task, metric_names)
    predictions = task.predictions(evaluated.rows, source)
    return score_predictions(
        task, predictions, source, loss=evaluated.loss, metric_names=names
    )


def score_predictions(
    task: Task,
    predictions: Sequence[Any],
    source: Data,
    *,
    loss: float,
    metric_names: Sequence[str],
) -> Evaluation:
    """Score one prediction an example against the references of ``source``."""
    references = task.references(source)
    metrics = {
        name: float(task.metrics[name](references, predictions))
        for name in metric_names
    }
    return Evaluation(
        scores={"loss": loss, **metrics},
        num_examples=len(predictions),
        references=references,
        predictions=predictions,
    )


def check_metric_names(task: Task, names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names, or the task's own for None; refuse one it has not.

    Raises:
      InputError: listing the unknown names and the known ones.
    """
    chosen = task.default_metrics if names is None else tuple(names)
    if unknown := sorted(set(chosen) - set(task.metrics)):
        raise InputError(
            f"unknown metrics {unknown} of the task {task.name!r}; known are "
            f"{sorted(task.metrics)}. Correct the name."
        )
    return chosen


def mode_of(metric: str) -> str:
    """Whether a metric is better when it is large ("max") or small ("min").

    >>> mode_of("perplexity")
    'min'
    """
    return "min" if metric in LOWER_IS_BETTER else "max"
