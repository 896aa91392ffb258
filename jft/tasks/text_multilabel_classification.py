# SPDX-License-Identifier: Apache-2.0
"""One text, or a pair of texts, any number of classes."""

from jft.tasks import multilabel, text_classification, texts
from jft.tasks.task import Task

TASK = Task(
    name="text_multilabel_classification",
    inputs=text_classification.INPUTS,
    target=multilabel.TARGET,
    head="sequence_classification",
    make_fields=texts.make_fields,
    make_loss=multilabel.make_loss,
    train_metrics={},
    predict=multilabel.predict,
    predictions=multilabel.predictions,
    references=multilabel.references,
    metrics=multilabel.METRICS,
    default_metrics=multilabel.DEFAULT_METRICS,
    write_prediction=multilabel.write_prediction,
    pipeline="text-classification",
    divergence="sigmoid",
    problem_type="multi_label_classification",
    plot=multilabel.plot,
    plot_name="classes.png",
)
