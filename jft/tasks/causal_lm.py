# SPDX-License-Identifier: Apache-2.0
"""Texts, each token predicted from those before it."""

from collections.abc import Mapping
from typing import Any

from jft.data import Column, make_language_fields
from jft.tasks import language
from jft.tasks.task import Task
from jft.tasks.texts import tokenizer_of


def make_fields(model: Any, *, max_length: int) -> Any:
    """Documents in pieces of at most ``max_length`` tokens."""
    return make_language_fields(tokenizer_of(model), max_length=max_length)


def make_prompt(model: Any, example: Mapping[str, Any]) -> str:
    """The text itself."""
    del model
    return str(example["text"])


TASK = Task(
    name="causal_lm",
    inputs=(Column("text", "text"),),
    target=None,
    head="causal_lm",
    make_fields=make_fields,
    make_loss=language.make_loss,
    train_metrics={"token_accuracy": language.token_accuracy},
    predict=language.predict,
    predictions=language.predictions,
    references=language.references,
    metrics=language.METRICS,
    default_metrics=language.DEFAULT_METRICS,
    write_prediction=language.write_prediction,
    pipeline="text-generation",
    divergence="softmax",
    packs=True,
    sums_tokens=True,
    make_prompt=make_prompt,
)
