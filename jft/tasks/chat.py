# SPDX-License-Identifier: Apache-2.0
"""Conversations, of which the assistant's turns are learned."""

from collections.abc import Mapping
from typing import Any

from jft.data import Column, make_chat_fields
from jft.tasks import language
from jft.tasks.texts import tokenizer_of


def make_fields(
    model: Any,
    *,
    max_length: int,
    train_on: str = "assistant",
    chat_template: str | None = None,
) -> Any:
    """Conversations as the tokenizer's chat template writes them."""
    return make_chat_fields(
        tokenizer_of(model),
        max_length=max_length,
        train_on=train_on,
        chat_template=chat_template,
    )


def make_prompt(model: Any, example: Mapping[str, Any]) -> str:
    """The conversation so far, and the beginning of the assistant's next turn."""
    return tokenizer_of(model).apply_chat_template(
        example["messages"], tokenize=False, add_generation_prompt=True
    )


TASK = language.make_task(
    name="chat",
    inputs=(Column("messages", "messages"),),
    head="causal_lm",
    make_fields=make_fields,
    pipeline="text-generation",
    make_prompt=make_prompt,
)
