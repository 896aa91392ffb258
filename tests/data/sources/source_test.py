# SPDX-License-Identifier: Apache-2.0
"""Arrays are a source, fields come from its columns, and a wrong name gets a hint."""

import pickle

import numpy as np
import pytest

from jft.data import (
    ArraySource,
    Source,
    select_columns,
)
from jft.data.sources.source import ColumnView
from jft.types import InputError


def films(**changes):
    columns = {
        "text": ["good", "bad", "hm"],
        "targets": np.array([1, 0, 1]),
        "image": np.arange(6, dtype=np.uint8).reshape(3, 1, 2, 1),
        "words": [["a"], ["b", "c"], []],
    }
    return ArraySource({**columns, **changes})


def test_rows_hold_plain_values():
    source = films()
    assert isinstance(source, Source)
    assert source.columns == ("text", "targets", "image", "words")
    row = source[1]
    assert (row["text"], row["targets"], row["words"]) == ("bad", 0, ["b", "c"])
    assert type(row["targets"]) is int
    np.testing.assert_array_equal(row["image"], np.array([[[2], [3]]], np.uint8))
    assert source.column("targets") == [1, 0, 1]
    assert {type(value) for value in source.column("targets")} == {int}
    assert [image.shape for image in source.column("image")] == [(1, 2, 1)] * 3
    assert source.where(2, "words") == "row 2, column 'words'"
    with pytest.raises(IndexError):
        source[3]


def test_array_source_repr_follows_the_content():
    same = repr(films())
    assert repr(films()) == same == repr(pickle.loads(pickle.dumps(films())))
    ragged = [np.zeros((1, size, 1), np.uint8) for size in (1, 2, 3)]
    others = [
        films(text=["good", "bad", "ha"]),
        films(text=["goodbad", "", "hm"]),
        films(targets=np.array([1, 0, 0])),
        films(targets=np.array([1, 0, 1], np.int8)),
        films(targets=["1", "0", "1"]),
        films(image=np.arange(6, dtype=np.uint8).reshape(3, 2, 1, 1)),
        films(words=[["a"], ["b"], ["c"]]),
        films(image=ragged),
        films(image=[*ragged[:2], ragged[2] + 1]),
        films(text=np.array(["good", "bad", "ha"], object)),
    ]
    assert len({same, *map(repr, others)}) == len(others)
    assert repr(others[0]) == repr(others[-1])  # a list or an array of objects


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, r"at least one column.*got lengths \{\}"),
        ({"image": np.zeros(2), "targets": [0, 1, 2]}, r"'image': 2, 'targets': 3"),
        ({"text": [], "targets": []}, "at least one row"),
    ],
)
def test_array_source_refuses(columns, message):
    with pytest.raises(InputError, match=message):
        ArraySource(columns)


def test_selected_columns_are_fields():
    source = ArraySource({"sentence": ["so"], "1": ["yes"], "more": [0]})
    chosen = select_columns(source, {"targets": 1, "text": "sentence"})
    assert chosen.columns == ("targets", "text")
    assert chosen[0] == {"targets": "yes", "text": "so"}
    assert list(chosen.column("targets")) == ["yes"]
    assert chosen.where(0, "text") == "row 0, column 'sentence'"
    assert len(chosen) == 1
    same = select_columns(source, {"targets": "1", "text": "sentence"})
    other = select_columns(source, {"targets": "more", "text": "sentence"})
    assert repr(same) == repr(chosen) != repr(other)


class Viewed(ArraySource):
    """Rows whose columns are views, as those of text files; counts what is read."""

    reads = 0

    def __getitem__(self, index):
        self.reads += 1
        return super().__getitem__(index)

    def column(self, name):
        return ColumnView(self, name)


@pytest.mark.parametrize("kind", [ArraySource, Viewed])
def test_several_columns_are_one_field(kind):
    source = kind({"0": ["so", "no"], "toxic": ["1", "0"], "insult": ["0", "1"]})
    chosen = select_columns(source, {"text": 0, "targets": ["toxic", "insult"]})
    rows = [{"toxic": "1", "insult": "0"}, {"toxic": "0", "insult": "1"}]
    assert chosen[1] == {"text": "no", "targets": rows[1]}
    column = chosen.column("targets")
    assert (len(column), column[-1], column[:1]) == (2, rows[1], rows[:1])
    source.reads = 0
    assert list(column) == rows
    assert source.reads <= 2  # each row once, not once a column
    assert chosen.where(1, "targets") == "row 1, column 'toxic' and 1 more"
    assert chosen.where(1, "text") == "row 1, column '0'"
    assert repr(pickle.loads(pickle.dumps(chosen))) == repr(chosen)
    other = select_columns(source, {"text": 0, "targets": ["insult", "toxic"]})
    assert repr(other) != repr(chosen)  # another order of classes
    alone = select_columns(source, {"targets": ["toxic"]})
    assert alone[0] == {"targets": {"toxic": "1"}}
    assert alone.where(0, "targets") == "row 0, column 'toxic'"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["a", "c"], r"'targets' is to be read from the column 'c'.*\['a', 'b'\]"),
        (["a", 7], r"from the column '7'"),
        ([], r"the columns \[\]; name at least one"),
        (["a", "b", "a"], "each once"),
    ],
)
def test_lists_of_columns_are_checked(asked, message):
    with pytest.raises(InputError, match=message):
        select_columns(ArraySource({"a": [0], "b": [1]}), {"targets": asked})


@pytest.mark.parametrize(
    ("columns", "asked", "message"),
    [
        ({"text": ["a"], "label": [0]}, "lable", r"'lable'.*\['text', 'label'\]\.$"),
        ({"text;label": ["a;0"]}, "label", r"set delimiter to ';'"),
        ({"0": ["text\tlabel"]}, "label", r"set delimiter to '\\t'"),
        ({"0": ["good\t1"]}, 1, r"set delimiter to '\\t'"),
        ({"0": ["good, or bad"]}, 2, r"set header to True if there is one"),
        ({"0": ["text"], "1": ["label"]}, "label", "first row holds 'label': set head"),
        ({"0": ["good"], "1": ["0"]}, "label", "read without a header"),
    ],
)
def test_absent_columns_are_refused_with_a_hint(columns, asked, message):
    with pytest.raises(InputError, match=message):
        select_columns(ArraySource(columns), {"targets": asked})


def test_a_view_of_a_column():
    view = ColumnView(films(), "text")
    assert list(view) == ["good", "bad", "hm"]
    assert (len(view), view[-1], view[1:]) == (3, "hm", ["bad", "hm"])
    with pytest.raises(KeyError):
        ColumnView(films(), "label")
