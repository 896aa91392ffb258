# SPDX-License-Identifier: Apache-2.0
"""What is asked? One small file a task; only experiments and notebooks import it."""

from collections.abc import Mapping

from jft.tasks import image_classification, text_classification
from jft.tasks.task import Task
from jft.types import InputError

TASKS: Mapping[str, Task] = {
    "image_classification": image_classification.TASK,
    "text_classification": text_classification.TASK,
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


def task_of_head(head: str) -> Task:
    """Find the task that a model with this head does.

    Raises:
      InputError: if no task uses such a head; lists those that are used.

    Example:
      >>> task_of_head("sequence_classification").name
      'text_classification'
    """
    for task in TASKS.values():
        if task.head == head:
            return task
    raise InputError(
        f"the model has the head {head!r}, which no task of jft uses; expected one of "
        f"{sorted({task.head for task in TASKS.values()})}. Fine-tune it first."
    )


__all__ = ["TASKS", "Task", "get_task", "task_of_head"]
