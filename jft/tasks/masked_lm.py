# SPDX-License-Identifier: Apache-2.0
"""Texts with words hidden, which the model guesses: pre-training on a domain.

Gururangan et al. 2020, "Don't Stop Pretraining", arXiv 2004.10964.
"""

from typing import Any

from jft.data import Column, make_mask_tokens, make_masked_fields
from jft.tasks import language
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


TASK = language.make_task(
    name="masked_lm",
    inputs=(Column("text", "text"),),
    head="masked_lm",
    make_fields=make_fields,
    pipeline="fill-mask",
    make_augment=make_augment,
)
