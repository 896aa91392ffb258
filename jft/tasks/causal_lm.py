# SPDX-License-Identifier: Apache-2.0
"""Texts, each token predicted from those before it."""

from collections.abc import Mapping
from typing import Any

from jft.data import Column, make_language_fields
from jft.tasks import language
from jft.tasks.texts import tokenizer_of


def make_fields(model: Any, *, max_length: int) -> Any:
    """Documents in pieces of at most ``max_length`` tokens."""
    return make_language_fields(tokenizer_of(model), max_length=max_length)


def make_prompt(model: Any, example: Mapping[str, Any]) -> str:
    """The text itself."""
    del model
    return str(example["text"])


TASK = language.make_task(
    name="causal_lm",
    inputs=(Column("text", "text"),),
    head="causal_lm",
    make_fields=make_fields,
    pipeline="text-generation",
    make_prompt=make_prompt,
)
