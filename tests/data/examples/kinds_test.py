# SPDX-License-Identifier: Apache-2.0
"""Each kind of column reads what files hold into one type, or says what is wrong."""

import math

import numpy as np
import pytest

from jft.data.examples.kinds import KINDS, Column, read_classes
from jft.data.examples.values import BadValueError
from jft.types import InputError

CONTEXT = "Zoë was born in Łódź in 1815."
GOOD = {
    "a text": ("text", "so good ", "so good "),
    "a text as TFDS has it": ("text", "café".encode(), "café"),
    "a text of numpy": ("text", np.str_("good"), "good"),
    "an image's file": ("image", "a/0.png", "a/0.png"),
    "words": ("words", ("Ada", "sleeps"), ["Ada", "sleeps"]),
    "words of numpy": ("words", np.array([b"Ada", b"\xc5\x81"], object), ["Ada", "Ł"]),
    "a class": ("class", " spam ", "spam"),
    "a class as a number": ("class", np.int64(3), "3"),
    "a class as a float": ("class", 3.0, "3"),
    "a class as a bool": ("class", True, "True"),
    "a class as bytes": ("class", b"spam", "spam"),
    "classes": ("classes", ["b", "a"], ["b", "a"]),
    "classes as numbers": ("classes", np.array([2, 0]), ["2", "0"]),
    "classes in a text": ("classes", "b, a,", ["b", "a"]),
    "no classes": ("classes", [], []),
    "no classes in a text": ("classes", " ", []),
    "columns of 0 and 1": (
        "classes",
        {"a": 1, "b": "0", "c": np.float32(1), "d": False, "e": " 1 "},
        {"a": True, "b": False, "c": True, "d": False, "e": True},
    ),
    "a number": ("number", 2, 2.0),
    "a number of numpy": ("number", np.float64(0.5), 0.5),
    "a number as text": ("number", " -1.5e2 ", -150.0),
    "tags": ("tags", ["O", "B-PER"], ["O", "B-PER"]),
    "tags as numbers": ("tags", np.array([0, 7]), ["0", "7"]),
    "answers": (
        "answers",
        {"text": np.array(["1815"]), "answer_start": np.array([24])},
        {"text": ["1815"], "answer_start": [24]},
    ),
    "one answer": (
        "answers",
        {"text": "1815", "answer_start": 24},
        {"text": ["1815"], "answer_start": [24]},
    ),
    "no answers": (
        "answers",
        {"text": [], "answer_start": []},
        {"text": [], "answer_start": []},
    ),
    "nothing for an answer": ("answers", None, {"text": [], "answer_start": []}),
    "an empty record": ("answers", {}, {"text": [], "answer_start": []}),
    "messages": (
        "messages",
        [
            {"role": "user", "content": "hi", "name": None},
            {"role": b"tool", "content": ""},
        ],
        [{"role": "user", "content": "hi"}, {"role": "tool", "content": ""}],
    ),
    "messages as TFDS has them": (
        "messages",
        {"role": np.array([b"user"], object), "content": np.array([b"hi"], object)},
        [{"role": "user", "content": "hi"}],
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_values_of_a_kind_are_of_one_type(name):
    kind, raw, expected = GOOD[name]
    value = KINDS[kind].read(raw)
    assert value == expected
    assert type(value) is type(expected)


def test_a_label_of_many_rows_is_one_object():
    one, other = ("".join(["go", "od"]) for _ in range(2))
    assert one is not other
    assert KINDS["class"].read(one) is KINDS["class"].read(other)
    (tag,), (again,) = map(KINDS["tags"].read, ([one], [other]))
    assert tag is again


def test_every_kind_is_tried_here():
    assert {kind for kind, *_ in GOOD.values()} == set(KINDS)
    assert {kind for kind, *_ in BAD.values()} == set(KINDS)


BAD = {
    "no text": ("text", None, "holds no text. Fill it in"),
    "a blank text": ("text", " \n", "holds no text"),
    "a missing text of pandas": ("text", math.nan, "holds no text"),
    "a number for a text": ("text", 5, r"holds 5 \(int\); expected a text"),
    "bytes of Latin-1": ("text", b"caf\xe9", "is no UTF-8: .* at byte 3"),
    "half a character": ("text", "ab\ud83d", r"half a character, '\\ud83d', at.* 2"),
    "no image": ("image", None, "holds no image"),
    "no words": ("words", [], "holds no words"),
    "nothing for words": ("words", None, "holds nothing; expected a list of words"),
    "a text for words": ("words", "Ada sleeps", "holds 'Ada sleeps'; expected a list"),
    "a blank word": ("words", ["Ada", " "], "has word 2 blank"),
    "a number as a word": ("words", ["in", 1815], r"has 1815 \(int\) as word 2"),
    "half a word": (
        "words",
        ["a", "b", "c\ud83d"],
        r"in word 3 holds half .* position 1",
    ),
    "no class": ("class", None, "has no label"),
    "a blank class": ("class", "  ", "has no label"),
    "a missing class of pandas": ("class", math.nan, "has no label"),
    "a measurement for a class": ("class", 0.5, r"label 0\.5 \(float\); expected a cl"),
    "a list for a class": ("class", ["a"], r"has the label \['a'\] \(list\)"),
    "a number for classes": ("classes", 3, r"holds 3 \(int\); expected a list of clas"),
    "nothing for classes": (
        "classes",
        None,
        "holds nothing; expected a list of classe",
    ),
    "a blank among classes": (
        "classes",
        ["a", ""],
        "in place 2 of its list has no lab",
    ),
    "no 0 or 1": ("classes", {"a": 1, "b": 2}, r"has 2 \(int\) for the class 'b'; exp"),
    "nothing for 0 or 1": ("classes", {"a": None}, "has None .* for the class 'a'"),
    "no number": ("number", "", "holds no number"),
    "NaN": ("number", math.nan, "holds no number"),
    "NaN as text": ("number", "nan", "holds 'nan'; expected a finite number"),
    "infinity": ("number", math.inf, r"holds inf \(float\); expected a finite number"),
    "too large": ("number", 1e39, r"holds 1e\+39 .*that float32 can hold"),
    "far too large": ("number", 10**400, "that float32 can hold"),
    "no digits": ("number", "three", r"holds 'three', which is no number\.$"),
    "a decimal comma": (
        "number",
        "1,5",
        "which is no number. Write decimals with a po",
    ),
    "an underscore": ("number", "1_5", "expected a finite number"),
    "a bool": ("number", True, r"holds True \(bool\); expected a finite number"),
    "a text for tags": ("tags", "O O", "holds 'O O'; expected a list of tags"),
    "a blank tag": ("tags", ["O", None], "in place 2 of its list has no label"),
    "a text for answers": ("answers", "1815", "holds '1815'; expected {\"text\""),
    "no starts": ("answers", {"text": ["a"]}, 'expected {"text"'),
    "too few starts": (
        "answers",
        {"text": ["a", "b"], "answer_start": [1]},
        "has 2 answers and 1 starts",
    ),
    "an empty answer": (
        "answers",
        {"text": "", "answer_start": 0},
        "has '' as an answ",
    ),
    "a start before": (
        "answers",
        {"text": "1815", "answer_start": -1},
        r"has -1 \(int\) as the start of '1815'",
    ),
    "a start as text": (
        "answers",
        {"text": "1815", "answer_start": "24"},
        "has '24' as the start of '1815'",
    ),
    "no messages": (
        "messages",
        [],
        r"holds \[\] \(list\); expected a list of messages",
    ),
    "ShareGPT's names": (
        "messages",
        [{"from": "human", "value": "hi"}],
        "as message 1; expected a record with role and content",
    ),
    "another role": (
        "messages",
        [{"role": "user", "content": "a"}, {"role": "human", "content": "hi"}],
        r"has the role 'human' in message 2; expected one of \['system', 'user'",
    ),
    "no content": (
        "messages",
        [{"role": "assistant", "content": None}],
        r"has None \(NoneType\) as the content of message 1",
    ),
    "a call of a tool": (
        "messages",
        [{"role": "assistant", "content": "", "tool_calls": [{"name": "f"}]}],
        "has tool_calls in message 1, which are not read",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_values_are_refused(name):
    kind, raw, message = BAD[name]
    with pytest.raises(BadValueError, match=message):
        KINDS[kind].read(raw)


def test_long_values_are_cut_in_messages():
    with pytest.raises(BadValueError) as caught:
        KINDS["number"].read("word " * 1000)
    assert len(str(caught.value)) < 200


def test_classes_in_a_text_have_a_separator():
    assert read_classes("a, b | c", separator="|") == ["a, b", "c"]


def test_a_column_is_of_a_known_kind():
    with pytest.raises(InputError, match="'y' is of the kind 'label'; expected one of"):
        Column("y", "label")


@pytest.mark.parametrize(
    ("column", "is_target"),
    [
        (Column("targets", "text"), True),
        (Column("tags", "tags"), True),
        (Column("text", "text"), False),
        (Column("messages", "messages"), False),
    ],
)
def test_what_prediction_does_without(column, is_target):
    assert column.is_target == is_target


# --- answers in their context ---------------------------------------------------------
def check(text, start):
    KINDS["answers"].check({"text": [text], "answer_start": [start]}, CONTEXT)


def test_answers_stand_where_they_say():
    check("Łódź", 16)
    check(CONTEXT, 0)
    KINDS["answers"].check({"text": [], "answer_start": []}, CONTEXT)
    KINDS["answers"].check({"text": ["Łódź"], "answer_start": [16]}, CONTEXT.encode())


@pytest.mark.parametrize(
    ("text", "start", "message"),
    [
        (
            "Łódź",
            17,
            r"at 17, but the context has 'ódź ' there\. It stands at 16, 1 cha",
        ),
        ("1815", 28, r"has '.' there\. It stands at 24, 4 characters earlier; starts"),
        ("in", 10, "It stands at 13, 3 characters later"),
        ("in", 19, "It stands at 21, 2 characters later"),
        ("łódź", 16, r"has 'Łódź' there\. It stands nowhere"),
        ("in", 15, "It stands at 13, 2 characters earlier"),
        (
            "1815",
            99,
            r"has only 29 characters\. It stands at 24, 75 characters earlier",
        ),
        ("1816", 24, r"has '1815' there\. It stands nowhere in the context"),
    ],
)
def test_answers_elsewhere_are_refused(text, start, message):
    with pytest.raises(BadValueError, match=message):
        check(text, start)
