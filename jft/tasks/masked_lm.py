# SPDX-License-Identifier: Apache-2.0
"""Texts with words hidden, which the model guesses: pre-training on a domain.

Gururangan et al. 2020, "Don't Stop Pretraining", arXiv 2004.10964.
"""

from typing import Any

from jft.data import Column, make_mask_tokens, make_masked_fields
from jft.tasks import language
from jft.tasks.task import Task
from jft.tasks.texts import tokenizer_of


def make_fields(model: Any, *, max_length: int, whole_word: bool = False) -> Any:
    """Documents in pieces of at most ``max_length`` tokens, nothing hidden yet."""
    return make_masked_fields(
        tokenizer_of(model), max_length=max_length, whole_word=whole_word
    )


def make_augment(
    model: Any, *, mask_rate: float = 0.15, whole_word: bool = False
) -> Any:
    """Hide ``mask_rate`` of the tokens, others each time; `make_mask_tokens`."""
    return make_mask_tokens(tokenizer_of(model), rate=mask_rate, whole_word=whole_word)


TASK = Task(
    name="masked_lm",
    inputs=(Column("text", "text"),),
    target=None,
    head="masked_lm",
    make_fields=make_fields,
    make_loss=language.make_loss,
    train_metrics={"token_accuracy": language.token_accuracy},
    predict=language.predict,
    predictions=language.predictions,
    references=language.references,
    metrics=language.METRICS,
    default_metrics=language.DEFAULT_METRICS,
    write_prediction=language.write_prediction,
    pipeline="fill-mask",
    make_augment=make_augment,
    divergence="softmax",
    packs=True,
    sums_tokens=True,
)
