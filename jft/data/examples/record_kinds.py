# SPDX-License-Identifier: Apache-2.0
"""Values that are records: answers in a context, and the messages of a conversation."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jft.data.examples.values import BadValueError, check_characters, plain, show

ROLES = ("system", "user", "assistant", "tool")


# --- answers in a context, as SQuAD has them ------------------------------------------
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


# --- conversations --------------------------------------------------------------------
def read_messages(value: Any) -> list[dict[str, str]]:
    """Turns of a conversation; of each only ``role`` and ``content``."""
    if isinstance(value, Mapping) and {"role", "content"} <= set(value):
        # how TFDS gives a list of records
        pairs = zip(_several(value["role"]), _several(value["content"]), strict=True)
        value = [{"role": role, "content": content} for role, content in pairs]
    if isinstance(value, np.ndarray | tuple):
        value = list(value)
    if not isinstance(value, list) or not value:
        raise BadValueError(
            f"holds {show(value)}; expected a list of messages, each with a role and a "
            "content."
        )
    return [_message(message, number) for number, message in enumerate(value, start=1)]


def check_assistant(messages: Sequence[Mapping[str, str]]) -> None:
    """Ask for a turn to learn from."""
    turns = [turn for turn in messages if turn["role"] == "assistant"]
    if not any(turn["content"].strip() for turn in turns):
        raise BadValueError(
            f"has {len(turns) or 'no'} messages of the role 'assistant'"
            f"{', all of them blank' if turns else ''}; expected one to learn from. "
            "Add it, or remove the row."
        )


def _message(message: Any, number: int) -> dict[str, str]:
    if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
        raise BadValueError(
            f"has {show(message)} as message {number}; expected a record with role and "
            "content."
        )
    role, content = plain(message["role"]), plain(message["content"])
    if role not in ROLES:
        raise BadValueError(
            f"has the role {show(role)} in message {number}; expected one of "
            f"{list(ROLES)}."
        )
    if message.get("tool_calls") is not None and len(message["tool_calls"]):
        raise BadValueError(
            f"has tool_calls in message {number}, which are not read; write what the "
            "model should say into its content."
        )
    if not isinstance(content, str):
        raise BadValueError(
            f"has {show(content)} as the content of message {number}; expected a text."
        )
    check_characters(content)
    return {"role": role, "content": content}
