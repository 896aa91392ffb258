# SPDX-License-Identifier: Apache-2.0
"""One image, any number of classes."""

from jft.data import Column
from jft.tasks import images, multilabel

TASK = multilabel.make_task(
    name="image_multilabel_classification",
    inputs=(Column("image", "image"),),
    head="image_classification",
    make_fields=images.make_fields,
    pipeline="image-classification",
)
