# SPDX-License-Identifier: Apache-2.0
"""What tasks of texts share."""

from typing import Any

from jft.data import TextFields, make_text_fields
from jft.types import InputError


def tokenizer_of(model: Any) -> Any:
    """The model's tokenizer.

    Raises:
      InputError: if it has none.
    """
    if model.processor is None:
        raise InputError(
            "the model has no tokenizer, so its texts cannot be read; add the files of "
            "the one it was trained with (tokenizer.json, tokenizer_config.json)."
        )
    return model.processor


def make_fields(model: Any, *, max_length: int) -> TextFields:
    """Tokens of one text or two, ``max_length`` of them at most."""
    return make_text_fields(tokenizer_of(model), max_length=max_length)
