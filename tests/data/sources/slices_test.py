# SPDX-License-Identifier: Apache-2.0
"""Slices of splits are cut as TensorFlow Datasets cuts them; overlaps are found."""

from types import SimpleNamespace

import numpy as np
import pytest

from jft.data.sources.slices import check_slices, index_ranges, parse_slices, slice_rows
from jft.types import InputError

SIZES = {"train": 40, "test": 10}


def parse(spec, sizes=SIZES):
    return parse_slices(spec, sizes, name="toy")


def of(**rows):
    return SimpleNamespace(rows={k: np.array(v) for k, v in rows.items()})


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("train", [("train", 0, 40)]),
        ("train[:80%]", [("train", 0, 32)]),
        ("train[80%:]", [("train", 32, 40)]),
        ("train[-25%:]", [("train", 30, 40)]),
        ("train[5:-5]", [("train", 5, 35)]),
        ("train[:]", [("train", 0, 40)]),
        ("test[7:] + train[:1]", [("test", 7, 10), ("train", 0, 1)]),
        ("train[:4]+train[4:8]", [("train", 0, 4), ("train", 4, 8)]),
    ],
)
def test_slices_are_absolute(spec, expected):
    assert parse(spec) == expected


def test_shares_round_as_in_tensorflow_datasets():
    core = pytest.importorskip("tensorflow_datasets").core
    for size in (7, 40, 871):
        info = core.SplitInfo(name="train", shard_lengths=[size], num_bytes=1)
        splits = core.SplitDict(split_infos=[info])
        for share in range(1, 100):
            spec = f"train[{share}%:]+train[:{share}%]"
            instruction = core.ReadInstruction.from_spec(spec)
            theirs = instruction.to_absolute(splits)
            if {theirs[0].from_, theirs[1].to} & {0, size}:
                continue  # one of the two is empty: an error here
            after, before = parse(spec, {"train": size})
            assert (after.start, before.stop) == (theirs[0].from_, theirs[1].to)


def test_shares_that_meet_neither_overlap_nor_leave_a_gap():
    for size in range(100, 140):
        for share in (1, 33, 50, 67, 99):
            low, high = parse(f"train[:{share}%]+train[{share}%:]", {"train": size})
            assert (low.start, low.stop, high.stop) == (0, high.start, size)
            last = parse(f"train[-{100 - share}%:]", {"train": size})[0]
            assert last.start == size - round((100 - share) * size / 100)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("valid", r"toy has no split 'valid'; it has \['test', 'train'\]"),
        ("train+valid[:3]", "has no split 'valid'"),
        ("train[::2]", r"'train\[::2\]' is no slice of a split; expected one like"),
        ("train[:half]", "is no slice"),
        ("train+", "'' is no slice"),
        ("train[:41]", "ends before row 41; 'train' of toy has 40 rows"),
        ("train[-41:]", "begins at row -1"),
        ("train[20:20]", "Ask for at least one"),
        ("train[-1%:]", "begins at row 40"),  # TensorFlow Datasets gives all 40 rows
        ("train[:101%]", "101% is more than there is"),
        ("train[:50%]+train[40%:]", r"has the rows 16 to 19 of 'train' twice"),
        ("train+test+train", "rows 0 to 39 of 'train' twice"),
        ("train[20:]+train[:21]", "rows 20 to 20 of 'train' twice"),
    ],
)
def test_bad_slices_are_refused(spec, message):
    with pytest.raises(InputError, match=message):
        parse(spec)


def test_rows_are_ranges_by_base():
    rows = slice_rows(parse("train[30:]+test[2:4]+train[:5]"), name="toy/1.0.0")
    assert {base: ranges.tolist() for base, ranges in rows.items()} == {
        "toy/1.0.0, train": [[0, 5], [30, 40]],
        "toy/1.0.0, test": [[2, 4]],
    }


def test_shared_rows_are_found_and_counted():
    rng = np.random.default_rng(0)
    for _ in range(50):
        one, other = (rng.choice(60, rng.integers(1, 30), False) for _ in range(2))
        shared = sorted(set(one.tolist()) & set(other.tolist()))
        sources = {
            "train": of(base=index_ranges(one)),
            "test": of(base=index_ranges(other)),
        }
        if not shared:
            check_slices(sources)
            continue
        with pytest.raises(InputError) as caught:
            check_slices(sources)
        assert f"'train' and 'test' share {len(shared)} rows of base: " in str(
            caught.value
        )
        assert f": {shared[0]} to " in str(caught.value)


def test_only_rows_of_one_base_are_compared():
    check_slices({"a": of(x=[[0, 5]]), "b": of(y=[[0, 5]]), "c": of(x=[[5, 9]])})
    with pytest.raises(InputError, match="'a' and 'c' share 1 rows of x: 4 to 4"):
        check_slices({"a": of(x=[[0, 5]]), "b": of(y=[[0, 5]]), "c": of(x=[[4, 9]])})
