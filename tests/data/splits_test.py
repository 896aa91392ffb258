# SPDX-License-Identifier: Apache-2.0
import pickle

import numpy as np
import pytest

from jft.data import ArraySource, load_digits_source, load_splits, split_source
from jft.types import InputError


def make_source(counts):
    targets = np.repeat(np.arange(len(counts)), counts)
    targets = np.random.default_rng(0).permutation(targets)
    fields = {"targets": targets, "position": np.arange(len(targets))}
    return ArraySource(fields, class_names=[f"class {i}" for i in range(len(counts))])


SIZES = [
    ({"train": 3, "validation": 2, "test": "rest"}, True),
    ({"train": 0.5, "test": 0.5}, True),
    ({"train": 0.8, "validation": 0.1, "test": 0.1}, False),
    ({"train": "rest", "validation": 0.25}, False),
    ({"train": 20, "test": 5}, False),
]


@pytest.mark.parametrize(("sizes", "per_class"), SIZES)
def test_splits_never_overlap_and_repeat(sizes, per_class):
    source = make_source([10, 11, 12])
    splits = split_source(source, sizes, seed=1, per_class=per_class)
    assert list(splits) == list(sizes)
    seen = np.concatenate([split.indices for split in splits.values()])
    assert len(set(seen.tolist())) == len(seen)
    complete = "rest" in sizes.values() or all(
        isinstance(s, float) for s in sizes.values()
    )
    assert (len(seen) == len(source)) == complete
    again = split_source(source, sizes, seed=1, per_class=per_class)
    other = split_source(source, sizes, seed=2, per_class=per_class)
    for name, split in splits.items():
        assert repr(split) == repr(again[name]) != repr(other[name])
        assert split.indices.tolist() == sorted(split.indices.tolist())


def test_sizes_per_class_and_of_all():
    source = make_source([10, 20])
    splits = split_source(
        source, {"train": 3, "validation": 0.2, "test": "rest"}, seed=0, per_class=True
    )
    found = {
        name: np.bincount(split.targets).tolist() for name, split in splits.items()
    }
    assert found == {"train": [3, 3], "validation": [2, 4], "test": [5, 13]}
    splits = split_source(source, {"train": 9, "test": 0.7}, seed=0)
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 9,
        "test": 21,
    }


def test_digits_split_as_published():
    sizes = {"train": 10, "validation": 20, "test": "rest"}
    splits = split_source(load_digits_source(), sizes, seed=0, per_class=True)
    assert [len(split) for split in splits.values()] == [100, 200, 1497]


def test_subset_reads_its_source():
    source = make_source([5, 5])
    train = split_source(source, {"train": 2}, seed=0, per_class=True)["train"]
    train = pickle.loads(pickle.dumps(train))
    for i, index in enumerate(train.indices.tolist()):
        assert train[i] == source[index]
        assert train[i]["position"] == index
        assert train.targets[i] == source.targets[index]


@pytest.mark.parametrize(
    ("sizes", "per_class", "message"),
    [
        ({"train": 0}, False, "size 0; expected"),
        ({"train": -1}, False, "size -1"),
        ({"train": 1.5}, False, "size 1.5"),
        ({"train": 0.0}, False, "size 0.0"),
        ({"train": True}, False, "size True"),
        ({"train": "all"}, False, "size 'all'"),
        ({"train": "rest", "test": "rest"}, False, "more than one"),
        ({"train": 6, "test": 10}, False, "ask for 16 examples of the source.*has 15"),
        ({"train": 4, "test": 2}, True, "ask for 6 examples of class 'class 0'.*has 5"),
        ({"train": 0.7, "test": 0.7}, False, "ask for 21"),
        ({"train": 15, "test": "rest"}, False, "'test' is empty"),
        ({"train": 0.01, "test": 0.5}, False, "'train' is empty"),
        ({"train": 1, "test": "rest"}, False, r"no example of the classes \['class"),
    ],
)
def test_bad_sizes_are_refused(sizes, per_class, message):
    with pytest.raises(InputError, match=message):
        split_source(make_source([5, 10]), sizes, seed=0, per_class=per_class)


# --- load_splits ----------------------------------------------------------------------
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


FILES = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}


def test_a_file_a_split_with_the_classes_of_train(reviews):
    splits = load_splits("tsv", reviews, split_paths=FILES, sizes={}, seed=0)
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 8,
        "validation": 3,
        "test": 2,
    }
    assert {split.class_names for split in splits.values()} == {("bad", "good")}
    assert splits["validation"].targets.tolist() == [1, 1, 1]
    assert splits["test"][1]["text"] == "cast 1"


def test_absolute_paths_need_no_folder(reviews):
    absolute = {name: f"{reviews}/{file}" for name, file in FILES.items()}
    splits = load_splits("tsv", split_paths=absolute, sizes={}, seed=0)
    assert len(splits["test"]) == 2


def test_what_has_no_file_is_drawn_from_that_of_train(reviews):
    arguments = {
        "split_paths": {"train": "train.tsv", "test": "test.tsv"},
        "sizes": {"train": "rest", "validation": 1},
        "per_class": True,
    }
    splits = load_splits("tsv", reviews, seed=0, **arguments)
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 6,
        "validation": 2,
        "test": 2,
    }
    texts = [row["text"] for name in ("train", "validation") for row in splits[name]]
    assert sorted(texts) == [f"film {i}" for i in range(8)]
    other = load_splits("tsv", reviews, seed=1, **arguments)
    assert repr(other["validation"]) != repr(splits["validation"])
    few = load_splits(
        "tsv", reviews, split_paths=FILES, sizes={"train": 2}, seed=0, per_class=True
    )
    assert np.bincount(few["train"].targets).tolist() == [2, 2]


def test_folders_can_be_splits_too(tmp_path):
    from PIL import Image

    for split in ("train", "test"):
        for name in ("ant", "cat"):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            Image.new("L", (4, 4)).save(folder / "0.png")
    paths = {"train": "train", "test": "test"}
    splits = load_splits("folder", str(tmp_path), split_paths=paths, sizes={}, seed=0)
    assert splits["test"].class_names == ("ant", "cat")


def test_without_paths_one_source_is_divided():
    sizes = {"train": 0.5, "test": "rest"}
    splits = load_splits("digits", sizes=sizes, seed=3)
    expected = split_source(load_digits_source(), sizes, seed=3)
    assert {k: repr(v) for k, v in splits.items()} == {
        k: repr(v) for k, v in expected.items()
    }


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
        r"\['test'\] read the file of 'train', .*/train.tsv",
    ),
    "unknown class in a test file": (
        {**FILES, "test": "other.tsv"},
        {},
        r"other.tsv, line 2, column 1 has the label 'so-so'; expected.*'bad', 'good'",
    ),
    "absent file": ({**FILES, "test": "tset.tsv"}, {}, "tset.tsv cannot be read"),
}


@pytest.mark.parametrize("name", BAD_PATHS)
def test_bad_paths_are_refused(name, reviews):
    paths, sizes, message = BAD_PATHS[name]
    with open(f"{reviews}/other.tsv", "w", encoding="utf-8") as other:
        other.write("a\tbad\nb\tso-so\n")
    with pytest.raises(InputError, match=message):
        load_splits("tsv", reviews, split_paths=paths, sizes=sizes, seed=0)


def test_sources_without_files_take_no_paths():
    with pytest.raises(InputError, match=r"'digits' reads no files; got path 'a\.tsv'"):
        load_splits("digits", split_paths={"train": "a.tsv"}, sizes={}, seed=0)


def test_classes_absent_from_the_training_file_are_refused(reviews):
    options = {"class_names": ["bad", "good", "great"]}
    with pytest.raises(InputError, match=r"'train' has no example of.*\['great'\]"):
        load_splits(
            "tsv", reviews, options=options, split_paths=FILES, sizes={}, seed=0
        )
