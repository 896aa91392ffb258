# SPDX-License-Identifier: Apache-2.0
"""Splits drawn by size, class, proportion or group never overlap, and repeat."""

import pickle
from collections import Counter

import numpy as np
import pytest

from jft.data.examples.examples import make_examples
from jft.data.examples.kinds import Column
from jft.data.examples.splits import Subset, row_key, split_source
from jft.data.sources.catalog import load_digits_source
from jft.data.sources.source import ArraySource, Source
from jft.types import InputError


def make_source(counts, **columns):
    targets = np.repeat([f"class {i}" for i in range(len(counts))], counts)
    targets = np.random.default_rng(0).permutation(targets).tolist()
    return ArraySource(
        {"targets": targets, "position": list(range(len(targets))), **columns}
    )


def classes_of(splits, column="targets"):
    return {name: Counter(split.column(column)) for name, split in splits.items()}


def is_complete(sizes):
    return "rest" in sizes.values() or all(isinstance(s, float) for s in sizes.values())


# --- sizes ----------------------------------------------------------------------------
SIZES = [
    {"train": 3, "validation": 2, "test": "rest"},
    {"train": 0.5, "test": 0.5},
    {"train": 0.8, "validation": 0.1, "test": 0.1},
    {"train": "rest", "validation": 0.25},
    {"train": 6, "test": 3},
]
RULES = [{}, {"per_class": True}, {"stratify": "targets"}, {"group": "speaker"}]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_splits_never_overlap_and_repeat(sizes, rule):
    source = make_source([10, 11, 12], speaker=[i // 2 for i in range(33)])
    splits = split_source(source, sizes, seed=1, **rule)
    assert list(splits) == list(sizes)
    seen = np.concatenate([split.indices for split in splits.values()])
    assert len(set(seen.tolist())) == len(seen)
    assert (len(seen) == len(source)) == is_complete(sizes)
    again = split_source(source, sizes, seed=1, **rule)
    other = split_source(source, sizes, seed=2, **rule)
    for name, split in splits.items():
        assert repr(split) == repr(again[name]) != repr(other[name])
        assert split.indices.tolist() == sorted(split.indices.tolist())


def test_sizes_per_class_and_of_all():
    source = make_source([10, 20])
    sizes = {"train": 3, "validation": 0.2, "test": "rest"}
    splits = split_source(source, sizes, seed=0, per_class=True)
    assert classes_of(splits) == {
        "train": {"class 0": 3, "class 1": 3},
        "validation": {"class 0": 2, "class 1": 4},
        "test": {"class 0": 5, "class 1": 13},
    }
    splits = split_source(source, {"train": 9, "test": 0.7}, seed=0)
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 9,
        "test": 21,
    }


def test_digits_split_as_published():
    sizes = {"train": 10, "validation": 20, "test": "rest"}
    splits = split_source(load_digits_source(), sizes, seed=0, per_class=True)
    assert [len(split) for split in splits.values()] == [100, 200, 1497]
    # the draw that published scores are of: shuffled, cut, class after class
    generator = np.random.default_rng(0)
    targets = np.array(load_digits_source().column("targets"))
    train = [
        generator.permutation(np.flatnonzero(targets == i))[:10] for i in range(10)
    ]
    assert splits["train"].indices.tolist() == sorted(np.concatenate(train).tolist())


def test_rows_without_a_class_stay_in_sight():
    source = ArraySource(
        {"targets": ["a", "", "b", "a", None, "b", " "], "text": list("0123456")}
    )
    sizes = {"test": 1, "train": "rest"}
    splits = split_source(source, sizes, seed=0, per_class=True)
    assert classes_of(splits)["test"] == {"a": 1, "b": 1}
    assert {"1", "4", "6"} < set(splits["train"].column("text"))
    columns = (Column("text", "text"), Column("targets", "class"))
    with pytest.raises(InputError, match=r"row 1, column 'targets' has no label"):
        make_examples(splits["train"], columns)


# --- in proportion --------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(20))
def test_stratified_splits_have_the_sources_proportions(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 40, size=rng.integers(2, 12))
    source = make_source(counts)
    total = len(source)
    train = int(rng.integers(total // 4, total // 2)) + 1
    for sizes in (
        {"train": 0.7, "validation": 0.2, "test": 0.1},
        {"train": train, "test": max(1, total // 5)},  # some rows are in neither
    ):
        if total < 10 * len(sizes):
            continue
        splits = split_source(source, sizes, seed=seed, stratify="targets")
        plain = split_source(source, sizes, seed=seed)
        for name, split in splits.items():
            assert len(split) == len(plain[name])  # sizes are of the whole
            found = Counter(split.column("targets"))
            for i, count in enumerate(counts):
                share = count * len(split) / total
                assert abs(found[f"class {i}"] - share) <= 2
        if len(counts) < len(splits["train"]) // 2:
            assert len(set(splits["train"].column("targets"))) == len(counts)


def test_stratified_by_hand():
    splits = split_source(
        make_source([60, 30, 10]),
        {"train": 0.8, "test": 0.2},
        seed=0,
        stratify="targets",
    )
    assert classes_of(splits) == {
        "train": {"class 0": 48, "class 1": 24, "class 2": 8},
        "test": {"class 0": 12, "class 1": 6, "class 2": 2},
    }


def test_a_rare_class_is_one_to_learn_from():
    source = make_source([97, 1, 1, 1])
    for seed in range(20):
        sizes = {"test": 0.5, "train": 0.5}
        splits = split_source(source, sizes, seed=seed, stratify="targets")
        assert len(set(splits["train"].column("targets"))) == 4
        assert len(splits["train"]) == 50


# --- by group -------------------------------------------------------------------------
GROUP_SIZES = [
    {"train": 0.5, "test": 0.5},
    {"train": 0.6, "validation": 0.2, "test": 0.2},
    {"train": "rest", "validation": 0.25},
    {"train": 70, "test": 40},
]


@pytest.mark.parametrize("sizes", GROUP_SIZES, ids=str)
def test_a_group_is_in_one_split(sizes):
    for seed in range(40):
        speakers = np.random.default_rng(seed).integers(0, 40, size=200).tolist()
        source = ArraySource({"speaker": speakers, "text": ["t"] * 200})
        splits = split_source(source, sizes, seed=seed, group="speaker")
        found = [set(split.column("speaker")) for split in splits.values()]
        assert sum(map(len, found)) == len(set().union(*found))
        rows = sum(len(split) for split in splits.values())
        assert (rows == 200) == is_complete(sizes)
        largest = max(Counter(speakers).values())
        exact = split_source(source, sizes, seed=seed)
        for name, split in splits.items():
            assert abs(len(split) - len(exact[name])) < largest


def test_groups_follow_one_another_until_a_split_is_full():
    source = ArraySource({"speaker": ["a", "a", "b", "b", "c", "c", "d", "d"]})
    for seed in range(10):
        splits = split_source(
            source, {"train": 3, "test": "rest"}, seed=seed, group="speaker"
        )
        assert [len(split) for split in splits.values()] == [4, 4]
    orders = {
        str(split_source(source, {"train": 1}, seed=seed, group="speaker")["train"][0])
        for seed in range(30)
    }
    assert len(orders) == 4  # any group may be the first


# --- what is refused ------------------------------------------------------------------
@pytest.mark.parametrize(
    ("sizes", "rule", "message"),
    [
        ({"train": 0}, {}, "size 0; expected"),
        ({"train": -1}, {}, "size -1"),
        ({"train": 1.5}, {}, "size 1.5"),
        ({"train": 0.0}, {}, "size 0.0"),
        ({"train": True}, {}, "size True"),
        ({"train": "all"}, {}, "size 'all'"),
        ({"train": "rest", "test": "rest"}, {}, "more than one"),
        ({"train": 6, "test": 10}, {}, "ask for 16 examples of the source.*has 15"),
        (
            {"train": 4, "test": 2},
            {"per_class": True},
            r"ask for 6 examples of class 'class 0' \(as in row \d+, column 'targets'\)"
            ", which has 5",
        ),
        ({"train": 0.7, "test": 0.7}, {}, "ask for 21"),
        ({"train": 15, "test": "rest"}, {}, "'test' is empty"),
        ({"train": 0.01, "test": 0.5}, {}, "'train' is empty"),
        ({"train": 0.5}, {"per_class": True, "group": "position"}, "by one rule"),
        ({"train": 0.5}, {"stratify": "targets", "group": "position"}, "by one rule"),
        ({"train": 0.5}, {"stratify": "targets", "per_class": True}, "by one rule"),
        (
            {"train": 0.5},
            {"group": "who"},
            r"'who'; the data has the columns \['targets",
        ),
        ({"train": 0.5}, {"group": "hole"}, "row 3, column 'hole' holds no value, so"),
        ({"train": 0.5}, {"group": "list"}, r"row 0, column 'list' holds \['a'\]"),
        (
            {"train": 10, "test": "rest"},
            {"group": "same"},
            "'test' is empty.*divide without group",
        ),
    ],
)
def test_bad_sizes_and_rules_are_refused(sizes, rule, message):
    source = make_source(
        [5, 10],
        hole=["a", "b", "c", None] + ["d"] * 11,
        list=[["a"]] * 15,
        same=["a"] * 15,
    )
    with pytest.raises(InputError, match=message):
        split_source(source, sizes, seed=0, **rule)


# --- subsets --------------------------------------------------------------------------
def test_a_subset_reads_its_source():
    source = make_source([5, 5])
    train = split_source(source, {"train": 2}, seed=0, per_class=True)["train"]
    assert isinstance(train, Source)
    train = pickle.loads(pickle.dumps(train))
    assert train.columns == source.columns
    assert len(train) == 4
    for i, index in enumerate(train.indices.tolist()):
        assert train[i] == source[index]
        assert train[i]["position"] == index == train.column("position")[i]
        assert train.where(i, "targets") == source.where(index, "targets")
    with pytest.raises(IndexError):
        train[4]


def test_a_subset_of_a_subset():
    source = make_source([5, 5])
    inner = Subset(Subset(source, np.array([8, 3, 1])), np.array([2, 0]))
    assert inner.column("position") == [1, 8]
    assert inner.where(1, "targets") == "row 8, column 'targets'"


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (" a ", "a"),
        (b"a", "a"),
        (np.int64(2), "2"),
        (2.0, "2"),
        (2.5, "2.5"),
        (True, "True"),
        (None, ""),
        (float("nan"), ""),
    ],
)
def test_what_rows_are_divided_by(value, key):
    assert row_key(value) == key
