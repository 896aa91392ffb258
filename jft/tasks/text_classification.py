# SPDX-License-Identifier: Apache-2.0
"""One text, or a pair of texts, one class."""

from typing import Any

from jft.data import TextFields, make_text_fields
from jft.tasks import classification
from jft.tasks.task import Task
from jft.types import InputError


def make_fields(
    processor: Any, *, num_classes: int | None, max_length: int
) -> TextFields:
    """Tokens as the model's tokenizer makes them, ``max_length`` of them."""
    if processor is None:
        raise InputError(
            "the model has no tokenizer, so its texts cannot be read; add the files of "
            "the one it was trained with (tokenizer.json, tokenizer_config.json)."
        )
    return make_text_fields(processor, max_length=max_length, num_classes=num_classes)


TASK = Task(
    name="text_classification",
    input="text",
    head="sequence_classification",
    fields=("input_ids", "attention_mask", "targets"),
    make_fields=make_fields,
    make_loss=classification.make_loss,
    train_metrics={"accuracy": classification.accuracy},
    metric_names=classification.METRIC_NAMES,
    write_prediction=classification.write_prediction,
    pipeline="text-classification",
)
