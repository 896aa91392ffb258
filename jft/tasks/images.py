# SPDX-License-Identifier: Apache-2.0
"""The fields of every task that sees images."""

from typing import Any

from jft.data import ImageFields, make_image_fields
from jft.types import InputError


def make_fields(model: Any, *, max_length: int) -> ImageFields:
    """Pixels as preprocessor_config.json says; ``max_length`` is of texts."""
    del max_length
    if model.processor is None:
        raise InputError(
            "the model folder has no preprocessor_config.json, so its image size and "
            "normalisation are not known; add the one its model was trained with."
        )
    return make_image_fields(model.processor)
