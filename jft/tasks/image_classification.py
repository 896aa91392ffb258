# SPDX-License-Identifier: Apache-2.0
"""One image, one class."""

from jft.data import Column
from jft.tasks import classification, images

TASK = classification.make_task(
    name="image_classification",
    inputs=(Column("image", "image"),),
    head="image_classification",
    make_fields=images.make_fields,
    pipeline="image-classification",
)
