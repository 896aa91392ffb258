# SPDX-License-Identifier: Apache-2.0
"""Splits that share rows, ids or groups, or lack a class, are refused."""

import numpy as np
import pytest

from jft.data.examples.examples import make_examples
from jft.data.examples.kinds import Column
from jft.data.examples.split_checks import check_splits, count_shared
from jft.data.examples.splits import Subset, split_source
from jft.data.sources.catalog import load_source
from jft.data.sources.source import ArraySource, select_columns
from jft.types import InputError


class Named(ArraySource):
    """An ArraySource that knows its file."""

    def __init__(self, file, **columns):
        super().__init__(columns)
        self.file = file

    def where(self, index, column):
        return f"{self.file}, row {index}, column {column!r}"


def two(first, second, column="id", **more):
    """Two sources of texts that all differ, with another column each."""
    return {
        name: Named(
            f"{name}.csv",
            text=[f"{name} {i}" for i in range(len(values))],
            **{column: values},
            **more,
        )
        for name, values in (("train", first), ("test", second))
    }


# --- rows -----------------------------------------------------------------------------
def test_splits_of_one_source_are_apart():
    source = ArraySource({"text": list("abcdefgh"), "id": list("abcdefgh")})
    check_splits(split_source(source, {"train": 0.5, "test": 0.5}, seed=0))


def test_an_empty_split_is_refused():
    splits = two(["a"], ["b"])
    with pytest.raises(InputError, match="'test' is empty"):
        check_splits({**splits, "test": Subset(splits["test"], np.array([], int))})


def test_shared_rows_of_one_source_are_refused():
    def rows(*indices, source=None):
        base = ArraySource({"text": [f"text {i}" for i in range(9)]})
        return Subset(source or base, np.array(indices))

    check_splits({"train": rows(0, 1, 2), "test": rows(3, 4)})
    message = (
        "'train' and 'test' share 2 rows of the same data, the first row 2, column"
    )
    with pytest.raises(InputError, match=message):
        check_splits({"train": rows(0, 2, 5), "test": rows(5, 3, 2)})
    nested = rows(0, 1, source=rows(7, 2))  # rows 7 and 2 of the source
    with pytest.raises(InputError, match=r"share 1 rows .* the first row 2,"):
        check_splits({"train": rows(0, 2, 5), "test": nested})
    named = select_columns(rows(2, 3), {"words": "text"})
    with pytest.raises(InputError, match=r"share 1 rows .* the first row 2,"):
        check_splits({"train": rows(0, 2, 5), "test": named})


def test_the_same_data_as_two_splits_is_refused(tmp_path):
    for name in ("train.tsv", "test.tsv"):  # a copy
        (tmp_path / name).write_text("good\t1\nbad\t0\n")
    splits = {
        name: load_source("tsv", str(tmp_path / f"{name}.tsv"))
        for name in ("train", "test")
    }
    with pytest.raises(InputError, match="'train' and 'test' share 2 rows of the same"):
        check_splits(splits)


# --- ids and groups -------------------------------------------------------------------
def test_shared_ids_are_refused_with_their_places():
    check_splits(two(["a", "b"], ["c", "d"]))
    with pytest.raises(InputError) as caught:
        check_splits(two(["a", "b", "x", "y", "z"], ["q", "z", "y", "x", "b", "b"]))
    assert str(caught.value) == (
        "the splits 'train' and 'test' share 4 values of the column 'id', so one is "
        "learned from what tests the other: 'b' in train.csv, row 1, column 'id' and "
        "in test.csv, row 4, column 'id'; 'x' in train.csv, row 2, column 'id' and in "
        "test.csv, row 3, column 'id'; 'y' in train.csv, row 3, column 'id' and in "
        "test.csv, row 2, column 'id'. Remove them from one, or divide by group."
    )


@pytest.mark.parametrize("ids", [[0, 1], ["1", "2"], ["text", "text"]])
def test_ids_of_a_file_alone_are_not_compared_unless_they_are_named(ids):
    if ids == ["text", "text"]:  # an image's name below its own folder
        splits = {
            name: Named(
                f"{name}.csv", image=["a/0", "a/1"], id=["a/0", "a/1"], n=[i, i]
            )
            for i, name in enumerate(("train", "test"))
        }
    else:
        splits = two(ids, ids)
    check_splits(splits)
    with pytest.raises(InputError, match="share 2 values of the column 'id'"):
        check_splits(splits, id_column="id")


def test_ids_that_are_missing_are_not_shared():
    check_splits(two(["a", "", None], ["b", None, " "]))


def test_groups_and_other_ids_are_compared_by_name():
    splits = two(["ann", "bob"], ["bob", "eve"], column="speaker")
    check_splits(splits)
    for arguments in ({"group": "speaker"}, {"id_column": "speaker"}):
        with pytest.raises(
            InputError, match=r"share 1 values of .*'speaker'.*'bob' in"
        ):
            check_splits(splits, **arguments)
    with pytest.raises(
        InputError, match=r"column 'who'; the data has the columns \['te"
    ):
        check_splits(splits, group="who")
    with pytest.raises(
        InputError, match=r"train.csv, row 0, column 'id' holds \['a'\]"
    ):
        check_splits(two([["a"]], [["b"]]))


def test_groups_of_examples_are_those_of_their_rows():
    splits = {
        name: make_examples(source, (Column("text", "text"),))
        for name, source in two(["ann"], ["ann"], column="speaker").items()
    }
    with pytest.raises(InputError, match="share 1 values"):
        check_splits(splits, group="speaker")


# --- classes --------------------------------------------------------------------------
def examples(kind, names, **splits):
    made = {}
    for name, targets in splits.items():
        source = Named(
            f"{name}.csv",
            words=[[f"{name} {i}"] * 2 for i in range(len(targets))],
            targets=targets,
        )
        columns = (Column("words", "words"), Column("targets", kind))
        made[name] = make_examples(source, columns, class_names=names)
    return made


ABSENT = {
    "a class": ("class", ["a", "b", "a"], ["a", "b", "c"], "row 2"),
    "one of several": ("classes", [["a", "b"], []], [["a"], ["b", "c"]], "row 1"),
    "a tag": ("tags", [["a", "b"]], [["a", "b"], ["b", "a"], ["a", "c"]], "row 2"),
}


@pytest.mark.parametrize("name", ABSENT)
def test_a_class_that_is_only_tested_is_refused(name):
    kind, train, test, row = ABSENT[name]
    splits = examples(kind, ["a", "b", "c"], train=train, test=test)
    message = (
        f"'train' has no example of the class 'c'; 'test' has it: test.csv, {row}, "
        "column 'targets'"
    )
    with pytest.raises(InputError, match=message):
        check_splits(splits)
    check_splits(examples(kind, ["a", "b", "c"], train=test, test=train))


def test_a_class_without_any_example_is_refused_but_a_tag_is_not():
    splits = examples("class", ["a", "b", "c"], train=["a", "b"], test=["a", "a"])
    with pytest.raises(InputError, match="class 'c'; no other split has one either"):
        check_splits(splits)
    check_splits(
        examples("tags", ["O", "B", "I"], train=[["O", "B"]], test=[["B", "O"]])
    )


def test_splits_have_the_classes_of_train():
    splits = examples("class", None, train=["a", "b"])
    splits |= examples("class", None, test=["a", "c"])
    with pytest.raises(InputError, match=r"'test' has the classes \['a', 'c'\], but"):
        check_splits(splits)


def test_fewer_examples_than_a_batch_are_refused():
    splits = two(["a", "b", "c"], ["d"])
    check_splits(splits, global_batch_size=3)
    with pytest.raises(
        InputError, match="'train' has 3 examples, fewer than a batch of"
    ):
        check_splits(splits, global_batch_size=4)


# --- what is the same in two splits ---------------------------------------------------
def test_shared_content_is_counted():
    splits = {
        "validation": ArraySource(
            {"text": ["a", "x", "a", "B"], "targets": [0, 1, 1, 0]}
        ),
        "train": ArraySource({"text": ["a", "b", "c"], "targets": [0, 0, 0]}),
        "test": ArraySource({"text": ["c ", "b"], "targets": [0, 0]}),
    }
    assert count_shared(splits, ["text"]) == {
        ("train", "validation"): 2,  # the same text twice counts twice
        ("train", "test"): 1,
    }
    assert count_shared(splits, ["text", "targets"])["train", "validation"] == 1
    assert count_shared({"test": splits["test"]}, ["text"]) == {}


def test_shared_lists_and_records_are_counted():
    def source(*values):
        return ArraySource({"x": list(values)})

    for one, same, other in (
        (["a", "b"], ["a", "b"], ["a b"]),
        ([{"role": "u", "content": "a"}], [{"content": "a", "role": "u"}], [{}]),
        (np.arange(3), np.arange(3), np.arange(1, 4)),
    ):
        splits = {"train": source(one), "a": source(same, other), "b": source(other)}
        assert list(count_shared(splits, ["x"]).values()) == [1, 0]


def test_columns_are_not_run_together():
    splits = {
        "train": ArraySource({"text": ["ab"], "text_pair": ["c"]}),
        "test": ArraySource({"text": ["a"], "text_pair": ["bc"]}),
    }
    assert list(count_shared(splits, ["text", "text_pair"]).values()) == [0]


def test_real_reviews_repeat_themselves(shared_data):
    splits = {
        name: load_source("tsv", str(shared_data / "sst2" / f"{name}.tsv"))
        for name in ("train", "dev", "test")
    }
    check_splits(splits)
    texts = {
        name: [
            line.split("\t")[0]
            for line in (shared_data / "sst2" / f"{name}.tsv")
            .read_text("utf-8")
            .splitlines()
        ]
        for name in splits
    }
    known = set(texts["train"])
    expected = {
        ("train", name): sum(text in known for text in texts[name])
        for name in ("dev", "test")
    }
    assert count_shared(splits, ["0"]) == expected
    assert sum(expected.values()) > 0
