# SPDX-License-Identifier: Apache-2.0
"""What a column may hold: a kind reads one raw value, or says what is wrong with it.

Values come from many places: CSV has strings, TFDS bytes and numpy scalars, Parquet
Python objects. After reading, the values of a kind are of one type.
"""

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jft.data.examples.classes import sort_names, sort_tags
from jft.data.examples.encoding import (
    Encoded,
    encode_ids,
    encode_numbers,
    encode_rows,
    encode_sets,
)
from jft.data.examples.record_kinds import (
    check_answers,
    check_assistant,
    read_answers,
    read_messages,
)
from jft.data.examples.values import (
    BadValueError,
    check_characters,
    is_missing,
    plain,
    plain_list,
    show,
)
from jft.types import InputError

MAX_NUMBER = float(np.finfo(np.float32).max)
OFF, ON = ("0", "0.0", "False"), ("1", "1.0", "True")  # of a column of 0 and 1


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How values of a kind are read and checked; each may raise `BadValueError`."""

    read: Callable[[Any], Any]  # raw -> value
    beside: str | None = None  # the field that values are checked against
    check: Callable[[Any, Any], None] | None = None  # (value, raw value beside it)
    check_target: Callable[[Any], None] | None = None  # to learn from, not to predict
    is_target: bool = False
    one_type: bool = False  # whether texts beside numbers in a column are a mistake
    order: Callable[[Iterable[str]], tuple[str, ...]] | None = None  # of found classes
    encode: Callable[[Sequence[Any], int], Encoded] | None = None  # all, by num_classes


# --- texts and images -----------------------------------------------------------------
def read_text(value: Any) -> str:
    """Text, not blank, that can be written as UTF-8."""
    value = plain(value)
    if is_missing(value):
        raise BadValueError("holds no text. Fill it in, or remove the row.")
    if not isinstance(value, str):
        raise BadValueError(f"holds {show(value)}; expected a text.")
    check_characters(value)
    return value


def read_words(value: Any) -> list[str]:
    """A list of words, none of them blank."""
    words = plain_list(value, "a list of words, such as ['Ada', 'sleeps']")
    if not words:
        raise BadValueError("holds no words. Fill them in, or remove the row.")
    if _are_plain(words):
        return words
    return [_word(word, number) for number, word in enumerate(words, start=1)]


def read_image(value: Any) -> Any:
    """What the source has for an image: pixels or, by column, its file's name."""
    if value is None:
        raise BadValueError("holds no image. Add it, or remove the row.")
    return value


def _are_plain(words: Sequence[Any]) -> bool:
    """Tell whether all are texts that hold something: a short look at many.

    >>> _are_plain(["a", "b"]), _are_plain(["a", " "]), _are_plain(["a", 1])
    (True, False, False)
    """
    if set(map(type, words)) != {str} or not all(map(str.strip, words)):
        return False
    try:
        check_characters("".join(words))
    except BadValueError:
        return False  # said below, of the word that it is
    return True


def _word(word: Any, number: int) -> str:
    word = plain(word)
    if is_missing(word):
        raise BadValueError(f"has word {number} blank. Remove it and its target.")
    if not isinstance(word, str):
        raise BadValueError(f"has {show(word)} as word {number}; expected a text.")
    try:
        check_characters(word)
    except BadValueError as error:
        raise BadValueError(f"in word {number} {error}") from None
    return word


# --- numbers and classes --------------------------------------------------------------
def read_number(value: Any) -> float:
    """A finite number that float32 can hold, or text that spells one."""
    value = plain(value)
    if is_missing(value):
        raise BadValueError("holds no number. Fill it in, or remove the row.")
    number = math.nan
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except ValueError:
            comma = " Write decimals with a point." if "," in str(value) else ""
            raise BadValueError(
                f"holds {show(value)}, which is no number.{comma}"
            ) from None
        except OverflowError:
            number = math.inf
    if not abs(number) <= MAX_NUMBER or (isinstance(value, str) and "_" in value):
        raise BadValueError(
            f"holds {show(value)}; expected a finite number that float32 can hold."
        )
    return number


def read_class(value: Any) -> str:
    """The label of a class; a whole number as the text that spells it."""
    value = plain(value)
    if isinstance(value, str):
        value = value.strip()
    if is_missing(value):
        raise BadValueError("has no label. Fill it in, or remove the row.")
    if isinstance(value, str):
        check_characters(value)
        return sys.intern(value)  # of a label in many rows memory holds one
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(value if isinstance(value, bool) else int(value))
    raise BadValueError(
        f"has the label {show(value)}; expected a class: a name or a whole number. "
        "Lists of classes and other numbers are targets of other tasks."
    )


def read_classes(value: Any, *, separator: str = ",") -> list[str] | dict[str, bool]:
    """The labels of several classes, or none; or a 0 or 1 for each class."""
    value = plain(value)
    if isinstance(value, Mapping):
        return {str(name): _flag(name, flag) for name, flag in value.items()}
    if isinstance(value, str):
        return [label for part in value.split(separator) if (label := part.strip())]
    labels = plain_list(
        value, f"a list of classes, or a text of them between {separator!r}"
    )
    return [_label(label, number) for number, label in enumerate(labels, start=1)]


def read_tags(value: Any) -> list[str]:
    """A tag a word."""
    tags = plain_list(value, "a list of tags, one a word")
    if _are_plain(tags):
        return [sys.intern(tag.strip()) for tag in tags]
    return [_label(tag, number) for number, tag in enumerate(tags, start=1)]


def check_tags(tags: list[str], words: Any) -> None:
    """Compare with the words that the tags are of."""
    if isinstance(words, list | tuple | np.ndarray) and len(words) != len(tags):
        raise BadValueError(
            f"has {len(tags)} tags for {len(words)} words; expected one a word. "
            "Correct the row, or remove it."
        )


def _label(label: Any, number: int) -> str:
    try:
        return read_class(label)
    except BadValueError as error:
        raise BadValueError(f"in place {number} of its list {error}") from None


def _flag(name: Any, flag: Any) -> bool:
    flag = plain(flag)
    text = str(flag).strip()
    if text in (*OFF, *ON):
        return text in ON
    raise BadValueError(f"has {show(flag)} for the class {name!r}; expected 0 or 1.")


KINDS: Mapping[str, Kind] = {
    "text": Kind(read=read_text),
    "image": Kind(read=read_image),
    "words": Kind(read=read_words),
    "class": Kind(
        read=read_class,
        is_target=True,
        one_type=True,
        order=sort_names,
        encode=encode_ids,
    ),
    "classes": Kind(
        read=read_classes,
        is_target=True,
        one_type=True,
        order=sort_names,
        encode=encode_sets,
    ),
    "number": Kind(
        read=read_number, is_target=True, one_type=True, encode=encode_numbers
    ),
    "tags": Kind(
        read=read_tags,
        beside="words",
        check=check_tags,
        is_target=True,
        order=sort_tags,
        encode=encode_rows,
    ),
    "answers": Kind(
        read=read_answers, beside="context", check=check_answers, is_target=True
    ),
    "messages": Kind(read=read_messages, check_target=check_assistant),
}


@dataclass(frozen=True)
class Column:
    """A field that a task reads of every row."""

    name: str
    kind: str  # a key of KINDS
    optional: bool = False  # absent where the source has no such column

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(
                f"the column {self.name!r} is of the kind {self.kind!r}; expected one "
                f"of {sorted(KINDS)}."
            )

    @property
    def is_target(self) -> bool:
        """Whether it is what a model learns to give, which prediction does without."""
        return self.name == "targets" or KINDS[self.kind].is_target
