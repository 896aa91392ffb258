# SPDX-License-Identifier: Apache-2.0
"""One image, any number of classes."""

from jft.data import Column
from jft.tasks import images, multilabel
from jft.tasks.task import Task

TASK = Task(
    name="image_multilabel_classification",
    inputs=(Column("image", "image"),),
    target=multilabel.TARGET,
    head="image_classification",
    make_fields=images.make_fields,
    make_loss=multilabel.make_loss,
    train_metrics={},
    predict=multilabel.predict,
    predictions=multilabel.predictions,
    references=multilabel.references,
    metrics=multilabel.METRICS,
    default_metrics=multilabel.DEFAULT_METRICS,
    write_prediction=multilabel.write_prediction,
    pipeline="image-classification",
    divergence="sigmoid",
    problem_type="multi_label_classification",
    plot=multilabel.plot,
    plot_name="classes.png",
)
