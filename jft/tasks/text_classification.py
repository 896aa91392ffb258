# SPDX-License-Identifier: Apache-2.0
"""One text, or a pair of texts, one class."""

from jft.data import Column
from jft.tasks import classification, texts

INPUTS = (Column("text", "text"), Column("text_pair", "text", optional=True))

TASK = classification.make_task(
    name="text_classification",
    inputs=INPUTS,
    head="sequence_classification",
    make_fields=texts.make_fields,
    pipeline="text-classification",
)
