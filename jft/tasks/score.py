# SPDX-License-Identifier: Apache-2.0
"""From the rows of an evaluation to the metrics of a task."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jft.evals import Evaluated, check_metric_names, compute_scores
from jft.tasks.task import Table, Task

# Every other metric is better when it is larger.
LOWER_IS_BETTER = frozenset({"loss", "log_loss", "perplexity", "rmse", "mae"})


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scores of a model on a set, and what they were computed from."""

    scores: dict[str, float]  # "loss" and each metric
    num_examples: int  # N
    references: Any  # one an example, an array or a list
    predictions: Any  # the same


def score(
    task: Task,
    evaluated: Evaluated,
    table: Table,
    *,
    metric_names: Sequence[str] | None = None,
) -> Evaluation:
    """Score what `jft.evals.evaluate` returned.

    Args:
      task: whose metrics are meant.
      evaluated: of every row of ``table``.
      table: the examples, or the table of their tokens, that the batches are from.
      metric_names: of ``task.metrics``; None are the task's default ones.

    Raises:
      InputError: for an unknown metric; lists the known ones.
    """
    names = choose_metrics(task, metric_names)
    predictions = task.predictions(evaluated.rows, table)
    references = task.references(table)
    scores = compute_scores(references, predictions, metrics=task.metrics, names=names)
    return Evaluation(
        scores={"loss": evaluated.loss, **scores},
        num_examples=len(predictions),
        references=references,
        predictions=predictions,
    )


def choose_metrics(task: Task, names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names, or the task's usual ones for None, if they can be computed.

    Raises:
      InputError: as `jft.evals.check_metric_names`.
    """
    chosen = task.default_metrics if names is None else tuple(names)
    check_metric_names(chosen, task.metrics)
    return chosen


def mode_of(metric: str) -> str:
    """Whether a metric is better when it is large ("max") or small ("min").

    >>> mode_of("perplexity")
    'min'
    """
    return "min" if metric in LOWER_IS_BETTER else "max"
