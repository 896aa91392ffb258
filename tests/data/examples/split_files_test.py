# SPDX-License-Identifier: Apache-2.0
"""A split has a file, a part or a size of its own, and no two read the same."""

from collections import Counter

import pytest

from jft.data.examples.split_files import load_splits
from jft.data.examples.splits import split_source
from jft.data.sources import catalog
from jft.data.sources.catalog import load_digits_source
from jft.data.sources.source import ArraySource
from jft.types import InputError

COLUMNS = {"text": 0, "targets": 1}


@pytest.fixture
def reviews(tmp_path):
    """Three files of reviews, 8, 3 and 2 of them; the last two have one class each."""
    contents = {
        "train.tsv": [f"film {i}\t{'good' if i % 2 else 'bad'}" for i in range(8)],
        "dev.tsv": [f"plot {i}\tgood" for i in range(3)],
        "test.tsv": [f"cast {i}\tbad" for i in range(2)],
    }
    for name, rows in contents.items():
        (tmp_path / name).write_text("\n".join(rows))
    return str(tmp_path)


def counts(splits):
    return {name: len(split) for name, split in splits.items()}


FILES = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}


# --- files ----------------------------------------------------------------------------
def test_a_file_a_split(reviews):
    splits = load_splits(
        "tsv", reviews, columns=COLUMNS, split_paths=FILES, sizes={}, seed=0
    )
    assert counts(splits) == {"train": 8, "validation": 3, "test": 2}
    assert splits["test"][1] == {"text": "cast 1", "targets": "bad"}
    assert splits["test"].where(1, "text") == "test.tsv, line 2, column '0'"


def test_columns_keep_their_names_where_none_are_given(reviews):
    splits = load_splits("tsv", reviews, split_paths=FILES, sizes={}, seed=0)
    assert splits["train"].columns == ("0", "1")


def test_absolute_paths_need_no_folder(reviews):
    absolute = {name: f"{reviews}/{file}" for name, file in FILES.items()}
    splits = load_splits("tsv", split_paths=absolute, sizes={}, seed=0)
    assert len(splits["test"]) == 2


def test_what_has_no_file_is_drawn_from_that_of_train(reviews):
    arguments = {
        "columns": COLUMNS,
        "split_paths": {"train": "train.tsv", "test": "test.tsv"},
        "sizes": {"train": "rest", "validation": 1},
        "per_class": True,
    }
    splits = load_splits("tsv", reviews, seed=0, **arguments)
    assert counts(splits) == {"train": 6, "validation": 2, "test": 2}
    texts = [*splits["train"].column("text"), *splits["validation"].column("text")]
    assert sorted(texts) == [f"film {i}" for i in range(8)]
    other = load_splits("tsv", reviews, seed=1, **arguments)
    assert repr(other["validation"]) != repr(splits["validation"])
    few = load_splits(
        "tsv",
        reviews,
        columns=COLUMNS,
        split_paths=FILES,
        sizes={"train": 2},
        seed=0,
        per_class=True,
    )
    assert Counter(few["train"].column("targets")) == {"good": 2, "bad": 2}


def test_folders_can_be_splits_too(tmp_path):
    from PIL import Image

    for split in ("train", "test"):
        for name in ("ant", "cat"):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            Image.new("L", (4, 4)).save(folder / "0.png")
    paths = {"train": "train", "test": "test"}
    splits = load_splits("folder", str(tmp_path), split_paths=paths, sizes={}, seed=0)
    assert splits["test"].column("targets") == ["ant", "cat"]


def test_without_paths_one_source_is_divided():
    sizes = {"train": 0.5, "test": "rest"}
    splits = load_splits("digits", sizes=sizes, seed=3)
    expected = split_source(load_digits_source(), sizes, seed=3)
    assert {k: repr(v) for k, v in splits.items()} == {
        k: repr(v) for k, v in expected.items()
    }


# --- columns that splits are drawn by -------------------------------------------------
def test_an_id_and_what_splits_are_drawn_by_are_kept(tmp_path):
    for name, rows in {"train.csv": range(8), "test.csv": range(8, 10)}.items():
        lines = [f"{i},text {i},{i % 2},speaker {i // 2},x" for i in rows]
        text = "\n".join(["id,sentence,label,who,other", *lines])
        (tmp_path / name).write_text(text)
    columns = {"text": "sentence", "targets": "label"}
    paths = {"train": "train.csv", "test": "test.csv"}
    arguments = {"columns": columns, "split_paths": paths, "seed": 0}
    sizes = {"train": 0.5, "validation": "rest"}
    splits = load_splits("csv", str(tmp_path), sizes=sizes, group="who", **arguments)
    for split in splits.values():
        assert set(split.columns) == {"id", "text", "targets", "who"}
    speakers = [set(split.column("who")) for split in splits.values()]
    assert sum(map(len, speakers)) == len(set().union(*speakers)) == 5
    splits = load_splits(
        "csv", str(tmp_path), sizes=sizes, stratify="targets", **arguments
    )
    assert set(splits["train"].columns) == {"id", "text", "targets"}
    assert Counter(splits["validation"].column("targets")) == {"0": 2, "1": 2}
    with pytest.raises(
        InputError, match=r"column 'whom'; the data has the columns \['i"
    ):
        load_splits("csv", str(tmp_path), sizes=sizes, group="whom", **arguments)


# --- parts that a source names --------------------------------------------------------
@pytest.fixture
def parts(monkeypatch):
    """A source that takes ``split``, and a list of the calls to it."""
    calls = []

    def load_parts(path=None, *, split="all", size=2):
        calls.append((path, split))
        return ArraySource({"text": [f"{split} {i}" for i in range(size)]})

    monkeypatch.setitem(catalog.SOURCES, "parts", load_parts)
    return calls


PARTS = {"train": "train[:80%]", "validation": "train[80%:]", "test": "test"}


def test_parts_are_asked_for_by_an_option(parts):
    splits = load_splits(
        "parts",
        "some/place",
        options={"size": 3},
        split_paths=PARTS,
        split_option="split",
        sizes={},
        seed=0,
    )
    assert parts == [("some/place", part) for part in PARTS.values()]
    assert splits["validation"].column("text") == [f"train[80%:] {i}" for i in range(3)]


def test_a_part_can_be_divided_too(parts):
    splits = load_splits(
        "parts",
        options={"size": 10},
        split_paths={"train": "train", "test": "test"},
        split_option="split",
        sizes={"train": "rest", "validation": 0.2},
        seed=0,
    )
    assert counts(splits) == {"train": 8, "validation": 2, "test": 10}


# --- what is refused ------------------------------------------------------------------
BAD_PATHS = {
    "a path and a size": (
        FILES,
        {"train": "rest", "validation": 0.1, "test": 0.1},
        r"\['test', 'validation'\] have both a path and a size.*No sizes, {}",
    ),
    "no path of train": (
        {"test": "test.tsv"},
        {"train": "rest", "validation": 0.1},
        "'train' needs a path",
    ),
    "no size of train": (
        {"train": "train.tsv", "test": "test.tsv"},
        {"validation": 0.1},
        "'train' needs a path and.*a size too",
    ),
    "tested on what it learned": (
        {**FILES, "test": "sub/../train.tsv"},
        {},
        "'train' and 'test' both read .*/train.tsv",
    ),
    "tested on what chose the model": (
        {**FILES, "test": "dev.tsv"},
        {},
        "'validation' and 'test' both read .*/dev.tsv",
    ),
    "absent file": ({**FILES, "test": "tset.tsv"}, {}, "tset.tsv cannot be read"),
}


@pytest.mark.parametrize("name", BAD_PATHS)
def test_bad_paths_are_refused(name, reviews):
    paths, sizes, message = BAD_PATHS[name]
    with pytest.raises(InputError, match=message):
        load_splits("tsv", reviews, split_paths=paths, sizes=sizes, seed=0)


@pytest.mark.parametrize(
    ("paths", "options", "message"),
    [
        ({}, {}, "split_option is 'split', but split_paths names no part"),
        (PARTS, {"split": "train"}, "'split' of the source is set by split_paths"),
        ({**PARTS, "test": "train[:80%]"}, {}, r"'train' and 'test' both read train\["),
    ],
)
def test_bad_parts_are_refused(paths, options, message, parts):
    with pytest.raises(InputError, match=message):
        load_splits(
            "parts",
            options=options,
            split_paths=paths,
            split_option="split",
            sizes={},
            seed=0,
        )
    assert not parts


def test_sources_without_files_take_no_paths():
    with pytest.raises(InputError, match=r"'digits' reads no files; got path 'a\.tsv'"):
        load_splits("digits", split_paths={"train": "a.tsv"}, sizes={}, seed=0)
