# SPDX-License-Identifier: Apache-2.0
"""Conversations: a list of messages, each of a role."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jft.data.values import BadValueError, check_characters, plain, show

ROLES = ("system", "user", "assistant", "tool")


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
