# SPDX-License-Identifier: Apache-2.0
"""Answers that are cut from a context, as SQuAD has them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jft.data.values import BadValueError, plain, show


def read_answers(value: Any) -> dict[str, list[Any]]:
    """Answers as SQuAD has them; empty lists where the context holds none."""
    if value is None or (isinstance(value, Mapping | list | tuple) and not value):
        return {"text": [], "answer_start": []}
    if not isinstance(value, Mapping) or not {"text", "answer_start"} <= set(value):
        raise BadValueError(
            f'holds {show(value)}; expected {{"text": […], "answer_start": […]}}, with '
            "the first character of each answer in the context, counted from 0."
        )
    texts, starts = (_several(value[name]) for name in ("text", "answer_start"))
    if len(texts) != len(starts):
        raise BadValueError(
            f"has {len(texts)} answers and {len(starts)} starts; expected equally many."
        )
    for text, start in zip(texts, starts, strict=True):
        if not isinstance(text, str) or not text:
            raise BadValueError(
                f"has {show(text)} as an answer; expected a text. A question without "
                "an answer has empty lists."
            )
        if not isinstance(start, int) or isinstance(start, bool) or start < 0:
            raise BadValueError(
                f"has {show(start)} as the start of {text!r}; expected the position of "
                "its first character in the context, counted from 0."
            )
    return {"text": texts, "answer_start": starts}


def check_answers(answers: Mapping[str, list[Any]], context: Any) -> None:
    """Compare with the context that the answers are cut from."""
    context = plain(context)
    if not isinstance(context, str):
        return  # refused as the context's own fault
    for text, start in zip(answers["text"], answers["answer_start"], strict=True):
        found = context[start : start + len(text)]
        if found != text:
            raise BadValueError(
                f"has the answer {show(text)} at {start}, but the context has "
                f"{show(found) if found else f'only {len(context)} characters'}"
                f"{' there' if found else ''}. {_nearest(text, start, context)}"
            )


def _several(value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, list | tuple) or (
        isinstance(value, np.ndarray) and value.ndim
    ):
        return [plain(item) for item in value]
    return [plain(value)]


def _nearest(text: str, start: int, context: str) -> str:
    before = context.rfind(text, 0, start + len(text))
    after = context.find(text, start)
    places = [place for place in (before, after) if place >= 0]
    if not places:
        return "It stands nowhere in the context; correct the answer or the context."
    place = min(places, key=lambda place: abs(place - start))
    side = "later" if place > start else "earlier"
    return (
        f"It stands at {place}, {abs(place - start)} characters {side}; starts count "
        "characters, not bytes, from 0."
    )
