# SPDX-License-Identifier: Apache-2.0
"""One text, or a pair of texts, any number of classes."""

from jft.tasks import multilabel, text_classification, texts

TASK = multilabel.make_task(
    name="text_multilabel_classification",
    inputs=text_classification.INPUTS,
    head="sequence_classification",
    make_fields=texts.make_fields,
    pipeline="text-classification",
)
