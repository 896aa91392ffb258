# SPDX-License-Identifier: Apache-2.0
import pickle

import numpy as np
import pytest

from jft.data import ArraySource, load_digits_source, split_source
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
