# SPDX-License-Identifier: Apache-2.0
"""A packed row holds whole texts with their own positions and hardly any padding."""

import pickle

import numpy as np
import pytest

from jft.data import make_eval_batches, pack, tokenize, unpack_batch
from jft.data.batches.packing import best_fit
from jft.types import InputError
from tests.data.batches.token_rows import (
    MASKED,
    ClassFields,
    Lines,
    PairFields,
    StrideFields,
    TokenFields,
    mask_tokens,
)

LENGTH = 48


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    return tokenize(Lines(500), TokenFields(), cache_dir=folder)


def segments(item):
    """The fields of each segment of a packed row."""
    ends = np.flatnonzero(np.diff(item["segment_ids"])) + 1
    parts = {name: np.split(x, ends) for name, x in item.items()}
    return [dict(zip(parts, x, strict=True)) for x in zip(*parts.values(), strict=True)]


def test_each_row_is_one_segment_with_its_own_tokens_targets_and_positions(table):
    packed = pack(table, length=LENGTH, seed=0)
    seen = []
    for i in range(len(packed)):
        item = packed[i]
        assert set(item) == {"input_ids", "targets", "position_ids", "segment_ids"}
        assert {x.dtype for x in item.values()} == {np.dtype(np.int32)}
        assert len({len(x) for x in item.values()}) == 1
        assert len(item["input_ids"]) == packed.lengths["input"][i] <= LENGTH
        rows = packed.rows_of(i)
        parts = segments(item)
        assert len(parts) == len(rows)
        for number, (row, part) in enumerate(zip(rows, parts, strict=True), start=1):
            kept = table[int(row)]
            np.testing.assert_array_equal(part["input_ids"], kept["input_ids"])
            np.testing.assert_array_equal(part["targets"], kept["targets"])
            assert set(part["segment_ids"].tolist()) == {number}
            expected = np.arange(len(part["input_ids"]))
            np.testing.assert_array_equal(part["position_ids"], expected)
        seen.extend(rows.tolist())
    assert sorted(seen) == list(range(500))
    with pytest.raises(IndexError):
        packed[len(packed)]


def test_hardly_anything_is_padding(table):
    packed = pack(table, length=LENGTH, seed=0)
    tokens = int(table.lengths["input"].sum())
    assert packed.fill_rate == tokens / (len(packed) * LENGTH)
    assert packed.fill_rate > 0.95
    assert pack(table, length=200, seed=0).fill_rate > 0.97


def test_the_seed_decides_the_order(table):
    packed, again, other = (pack(table, length=LENGTH, seed=s) for s in (0, 0, 1))
    assert repr(packed) == repr(again) == repr(pickle.loads(pickle.dumps(packed)))
    assert repr(packed) != repr(other)
    assert repr(packed) != repr(pack(table, length=LENGTH + 1, seed=0))
    np.testing.assert_array_equal(packed[3]["input_ids"], again[3]["input_ids"])
    first = [packed.rows_of(i)[0] for i in range(40)]
    assert first != sorted(first)
    assert first != [other.rows_of(i)[0] for i in range(40)]


def test_a_change_is_of_each_row(table):
    packed = pack(table, length=LENGTH, seed=0)
    sizes = []

    def change(row):
        assert "attention_mask" in row
        sizes.append(len(row["input_ids"]))
        return mask_tokens(row, np.random.default_rng(0))

    changed, plain = packed.read(3, change), packed[3]
    assert sizes == table.lengths["input"][packed.rows_of(3)].tolist()
    np.testing.assert_array_equal(changed["targets"], plain["targets"])
    masked = changed["input_ids"] == MASKED
    assert 0 < masked.sum() < len(masked)
    np.testing.assert_array_equal(
        changed["input_ids"][~masked], plain["input_ids"][~masked]
    )


def test_rows_that_do_not_fit_are_named(table):
    longest = int(table.lengths["input"].max())
    assert pack(table, length=longest, seed=0)
    name = table.examples[int(table.lengths["input"].argmax())]["id"]
    with pytest.raises(InputError, match=rf"example {name} has a row of {longest} "):
        pack(table, length=longest - 1, seed=0)


def test_several_rows_of_an_example_may_go_anywhere(tmp_path):
    table = tokenize(Lines(50), StrideFields(), cache_dir=tmp_path)
    packed = pack(table, length=20, seed=0)
    rows = np.concatenate([packed.rows_of(i) for i in range(len(packed))])
    assert sorted(rows.tolist()) == list(range(len(table)))


def test_rows_without_a_value_a_token_are_refused(tmp_path):
    table = tokenize(Lines(5), ClassFields(), cache_dir=tmp_path)
    with pytest.raises(InputError, match=r"fields \['targets'\].*one value a row"):
        pack(table, length=LENGTH, seed=0)
    table = tokenize(Lines(5), PairFields(), cache_dir=tmp_path)
    with pytest.raises(InputError, match=r"groups of lengths \['input', 'target'\]"):
        pack(table, length=LENGTH, seed=0)


@pytest.mark.parametrize("process_count", [1, 2])
def test_a_packed_batch_is_unpacked_again(tmp_path, process_count):
    """With fields it was not packed with, of tokens and of examples."""
    table = tokenize(Lines(21), ClassFields(), cache_dir=tmp_path)
    options = {"pack_length": 41, "process_count": process_count}
    parts = [
        list(make_eval_batches(table, global_batch_size=8, process_index=p, **options))
        for p in range(process_count)
    ]
    seen = []
    for blocks in zip(*parts, strict=True):
        for process, block in enumerate(blocks):  # as `shard_batch` counts them
            tokens = block["input_ids"].size
            block["first_tokens"] = block["first_tokens"] + process * tokens
        batch = {n: np.concatenate([b[n] for b in blocks]) for n in blocks[0]}
        batch["hidden"] = batch["input_ids"][..., None] * np.ones(3)
        batch["pooled"] = batch["targets"][:, None, None] * np.ones((1, 1, 3))
        alone = unpack_batch(batch)
        assert not {"segment_ids", "position_ids", "first_tokens"} & set(alone)
        for i, row in enumerate(batch["index"]):
            size = alone["attention_mask"][i].sum()
            if row < 0:
                assert size == 0
                continue
            seen.append(int(row))
            expected = table[int(row)]
            assert size == len(expected["input_ids"])
            np.testing.assert_array_equal(
                alone["input_ids"][i, :size], expected["input_ids"]
            )
            np.testing.assert_array_equal(
                alone["hidden"][i, :size, 2], expected["input_ids"]
            )
            assert not alone["hidden"][i, size:].any()
            assert alone["targets"][i] == expected["targets"]
            assert alone["pooled"][i, 0, 0] == expected["targets"]
    assert sorted(seen) == list(range(21))


def test_what_is_not_packed_is_unpacked_as_it_is():
    batch = {"input_ids": np.ones((2, 3))}
    assert unpack_batch(batch) == batch


@pytest.mark.parametrize("seed", range(3))
def test_best_fit_takes_the_fullest_bin_with_room(seed):
    sizes = np.random.default_rng(seed).integers(0, 21, 300).tolist()
    room = []
    for size, chosen in zip(sizes, best_fit(sizes, capacity=20), strict=True):
        if chosen == len(room):
            assert all(r < size for r in room)
            room.append(20)
        assert room[chosen] == min([r for r in room if r >= size])
        room[chosen] -= size
