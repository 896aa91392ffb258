# SPDX-License-Identifier: Apache-2.0
"""One image, one class."""

from jft.data import Column
from jft.tasks import classification, images
from jft.tasks.task import Task

TASK = Task(
    name="image_classification",
    inputs=(Column("image", "image"),),
    target=classification.TARGET,
    head="image_classification",
    make_fields=images.make_fields,
    make_loss=classification.make_loss,
    train_metrics={"accuracy": classification.accuracy},
    predict=classification.predict,
    predictions=classification.predictions,
    references=classification.references,
    metrics=classification.METRICS,
    default_metrics=classification.DEFAULT_METRICS,
    write_prediction=classification.write_prediction,
    pipeline="image-classification",
    problem_type="single_label_classification",
    divergence="softmax",
    plot=classification.plot,
    plot_name="confusion.png",
)
