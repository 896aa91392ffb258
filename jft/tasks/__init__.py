# SPDX-License-Identifier: Apache-2.0
"""What is asked? One small file a task; only experiments and notebooks import it."""

from collections.abc import Mapping

from jft.tasks import image_classification
from jft.tasks.task import Task
from jft.types import InputError

TASKS: Mapping[str, Task] = {
    "image_classification": image_classification.TASK,
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


__all__ = ["TASKS", "Task", "get_task"]
