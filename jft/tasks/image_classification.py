# SPDX-License-Identifier: Apache-2.0
"""One image, one class."""

from typing import Any

from jft.data import ImageFields, make_image_fields
from jft.tasks import classification
from jft.tasks.task import Task
from jft.types import InputError


def make_fields(
    processor: Any, *, num_classes: int | None, max_length: int
) -> ImageFields:
    """Pixels as preprocessor_config.json says; ``max_length`` is of texts."""
    del max_length
    if processor is None:
        raise InputError(
            "the model folder has no preprocessor_config.json, so its image size and "
            "normalisation are not known; add the one its model was trained with."
        )
    return make_image_fields(processor, num_classes=num_classes)


TASK = Task(
    name="image_classification",
    input="image",
    head="image_classification",
    fields=("pixel_values", "targets"),
    make_fields=make_fields,
    make_loss=classification.make_loss,
    train_metrics={"accuracy": classification.accuracy},
    metric_names=classification.METRIC_NAMES,
    write_prediction=classification.write_prediction,
    pipeline="image-classification",
)
