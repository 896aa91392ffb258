# SPDX-License-Identifier: Apache-2.0
"""Raw values, whichever library read them: as Python's own, and shown in messages."""

import math
from typing import Any

import numpy as np


class BadValueError(ValueError):
    """What is wrong with a value, worded to follow the place where it stands."""


def plain(value: Any) -> Any:
    """Return a numpy scalar as Python's own, and bytes as the text they spell.

    Raises:
      BadValueError: for bytes that are no UTF-8.

    Example:
      >>> plain(np.int64(3)), plain("café".encode())
      (3, 'café')
    """
    if isinstance(value, np.generic | np.ndarray) and not value.ndim:
        value = value.item()
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadValueError(
                f"is no UTF-8: {error.reason} at byte {error.start}. Convert it."
            ) from error
    return value


def plain_list(value: Any, expected: str) -> list[Any]:
    """Return a list, tuple or array of one axis as a list.

    Raises:
      BadValueError: if it is none of these; says what was expected.

    Example:
      >>> plain_list(np.array([1, 2]), "a list")
      [1, 2]
    """
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return list(value.tolist())
    if isinstance(value, list | tuple):
        return list(value)
    held = "nothing" if is_missing(value) else show(plain(value))
    raise BadValueError(f"holds {held}; expected {expected}.")


def is_missing(value: Any) -> bool:
    """Tell whether nothing stands there.

    >>> is_missing(" "), is_missing(None), is_missing(math.nan), is_missing(0)
    (True, True, True, False)
    """
    if isinstance(value, str):
        return not value or value.isspace()
    return value is None or (isinstance(value, float) and math.isnan(value))


def check_characters(text: str) -> None:
    """Refuse half characters, which JSON can spell and no tokenizer takes.

    Raises:
      BadValueError: for a surrogate; says where.
    """
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadValueError(
            f"holds half a character, {text[error.start]!r}, at position "
            f"{error.start}. Correct the text; it was cut inside a character."
        ) from error


def show(value: Any) -> str:
    """Write a value in a message: the start of a long one, and its type.

    >>> show("a"), show(3)
    ("'a'", '3 (int)')
    """
    text = repr(value)
    text = text if len(text) <= 60 else f"{text[:57]}…"
    return text if isinstance(value, str) else f"{text} ({type(value).__name__})"
