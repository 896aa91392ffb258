# SPDX-License-Identifier: Apache-2.0
"""What is asked? One small file a task; only experiments and notebooks import it.

Detection and the tasks of speech come with their models; each will be one more file.
"""

from collections.abc import Mapping

from jft.tasks import (
    causal_lm,
    chat,
    image_classification,
    image_multilabel_classification,
    masked_lm,
    question_answering,
    sentence_similarity,
    sequence_to_sequence,
    text_classification,
    text_multilabel_classification,
    text_regression,
    token_classification,
)
from jft.tasks.score import Evaluation, choose_metrics, mode_of, score
from jft.tasks.task import (
    Table,
    Task,
    call_with_options,
    check_options,
    option_names,
)
from jft.types import InputError

TASKS: Mapping[str, Task] = {
    module.TASK.name: module.TASK
    for module in (
        causal_lm,
        chat,
        image_classification,
        image_multilabel_classification,
        masked_lm,
        question_answering,
        sentence_similarity,
        sequence_to_sequence,
        text_classification,
        text_multilabel_classification,
        text_regression,
        token_classification,
    )
}


def get_task(name: str) -> Task:
    """Look a task up.

    Raises:
      InputError: if there is none of that name; lists the known ones.
    """
    if name not in TASKS:
        raise InputError(
            f"unknown task {name!r}; expected one of {sorted(TASKS)}. Set data.task."
        )
    return TASKS[name]


def task_of_head(head: str, problem_type: str | None = None) -> Task:
    """Find the task that a model with this head does, the most usual one first.

    Args:
      head: the name of the model's head.
      problem_type: of its config.json, which tells apart heads of one name.

    Raises:
      InputError: if no task uses such a head; lists those that are used.

    Example:
      >>> task_of_head("sequence_classification").name
      'text_classification'
      >>> task_of_head("sequence_classification", "regression").name
      'text_regression'
    """
    fitting = [task for task in TASKS.values() if task.head == head]
    if not fitting:
        raise InputError(
            f"the model has the head {head!r}, which no task of jft uses; expected one "
            f"of {sorted({task.head for task in TASKS.values()})}. Fine-tune it first."
        )
    exact = [task for task in fitting if task.problem_type == problem_type]
    return (exact or fitting)[0]


__all__ = [
    "TASKS",
    "Evaluation",
    "Table",
    "Task",
    "call_with_options",
    "check_options",
    "choose_metrics",
    "get_task",
    "mode_of",
    "option_names",
    "score",
    "task_of_head",
]
