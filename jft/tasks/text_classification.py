# SPDX-License-Identifier: Apache-2.0
"""One text, or a pair of texts, one class."""

from jft.data import Column
from jft.tasks import classification, texts
from jft.tasks.task import Task

INPUTS = (Column("text", "text"), Column("text_pair", "text", optional=True))

TASK = Task(
    name="text_classification",
    inputs=INPUTS,
    target=classification.TARGET,
    head="sequence_classification",
    make_fields=texts.make_fields,
    make_loss=classification.make_loss,
    train_metrics={"accuracy": classification.accuracy},
    predict=classification.predict,
    predictions=classification.predictions,
    references=classification.references,
    metrics=classification.METRICS,
    default_metrics=classification.DEFAULT_METRICS,
    write_prediction=classification.write_prediction,
    pipeline="text-classification",
    problem_type="single_label_classification",
    divergence="softmax",
    plot=classification.plot,
    plot_name="confusion.png",
)
