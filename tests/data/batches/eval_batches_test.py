# SPDX-License-Identifier: Apache-2.0
"""Evaluation has each row once, in few shapes; blank rows fill up, masked out."""

import numpy as np
import pytest

from jft.data import (
    make_eval_batches,
    pack,
    tokenize,
)
from jft.data.fields.augment import AugmentImage
from jft.types import InputError
from tests.data.batches.token_rows import (
    MASKED,
    ClassFields,
    Lines,
    PairFields,
    TokenFields,
    mask_tokens,
)

FIELDS = {"class": ClassFields, "token": TokenFields, "pair": PairFields}


@pytest.fixture
def make_table(tmp_path):
    def make_table(num=53, kind="class", **changes):
        return tokenize(Lines(num), FIELDS[kind](**changes), cache_dir=tmp_path)

    return make_table


def make(table, index=0, count=1, batch_size=8, **options):
    return make_eval_batches(
        table,
        global_batch_size=batch_size,
        process_index=index,
        process_count=count,
        **options,
    )


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("num", [1, 3, 8, 9, 53])
@pytest.mark.parametrize("side", ["left", "right"])
def test_each_row_comes_once_and_what_is_left_over_is_blank(
    make_table, num, count, side
):
    table = make_table(num, padding_side=side)
    seen, shapes = [], []
    for p in range(count):
        batches = make(table, p, count)
        listed = list(batches)
        assert len(listed) == len(batches) == -(-num // 8)
        shapes.append([batch["input_ids"].shape for batch in listed])
        for batch in listed:
            assert batch.keys() == {*table.model_fields, "index", "loss_mask"}
            real = batch["loss_mask"] == 1
            assert len(real) == 8 // count
            np.testing.assert_array_equal(real, batch["index"] >= 0)
            for i in np.flatnonzero(real):
                row = table[int(batch["index"][i])]
                kept = batch["attention_mask"][i] == 1
                np.testing.assert_array_equal(
                    batch["input_ids"][i][kept], row["input_ids"]
                )
                assert kept[0 if side == "right" else -1]
                assert batch["targets"][i] == row["targets"]
            assert (batch["input_ids"][~real] == 1).all()
            assert not batch["attention_mask"][~real].any()
            assert not batch["targets"][~real].any()
            seen.extend(batch["index"][real].tolist())
    assert sorted(seen) == list(range(num))
    assert all(shape == shapes[0] for shape in shapes)


@pytest.mark.parametrize("kind", FIELDS)
def test_few_shapes_and_little_padding_are_needed(make_table, kind):
    table = make_table(400, kind)
    for most in (1, 3):
        lengths, real, total = [], 0, 0
        for batch in make(table, num_lengths=most):
            lengths.append(batch["input_ids"].shape[1])
            real += int(batch["attention_mask"].sum())
            total += batch["attention_mask"].size
        assert lengths == sorted(lengths, reverse=True)
        assert len(set(lengths)) == most
        assert real / total > (0.2 if most == 1 else 0.6)
    longest = int(table.lengths["input"].max())
    assert lengths[0] == -(-longest // 8) * 8
    exact = make(table, max_lengths=dict.fromkeys(table.lengths, longest))
    assert next(iter(exact))["input_ids"].shape[1] == longest


def test_packed_rows_can_be_scored_too(make_table):
    packed = pack(make_table(kind="token"), length=41, seed=0)
    rows = np.concatenate([batch["index"] for batch in make(packed)])
    assert sorted(rows[rows >= 0].tolist()) == list(range(len(packed)))


def test_random_changes_depend_on_the_row_alone(make_table):
    table = make_table(kind="token")
    found = []
    for options in ({}, {}, {"batch_size": 5}):
        rows = {}
        for batch in make(table, augment=mask_tokens, **options):
            for index, mask, ids in zip(
                batch["index"], batch["attention_mask"], batch["input_ids"], strict=True
            ):
                if index >= 0:
                    rows[int(index)] = ids[mask == 1].tolist()
        found.append(rows)
    assert found[0] == found[1] == found[2]
    tokens = np.concatenate(list(found[0].values()))
    assert 0.1 < (tokens == MASKED).mean() < 0.3
    masked = {tuple(np.array(x[:8]) == MASKED) for x in found[0].values() if len(x) > 7}
    assert len(masked) > 5  # not alike in all rows


class Images:
    def __len__(self):
        return 5

    def __getitem__(self, index):
        return {"image": np.full((2, 2, 1), 10 * index, np.uint8)}


def fields_fn(example):
    return {"pixels": example["image"], "index": np.int32(example["index"])}


def noise(image, generator):
    return image + generator.integers(0, 9, image.shape, np.uint8)


def test_examples_can_be_changed_alike_at_every_evaluation():
    options = {"fields_fn": fields_fn, "augment": AugmentImage(noise)}
    (first,) = make(Images(), **options)
    (again,) = make(Images(), **options)
    (plain,) = make(Images(), fields_fn=fields_fn)
    np.testing.assert_array_equal(first["pixels"], again["pixels"])
    change = (first["pixels"] - plain["pixels"])[:5].reshape(5, -1)
    assert len({tuple(row) for row in change.tolist()}) == 5


def test_a_fields_function_belongs_to_examples(make_table):
    with pytest.raises(InputError, match="leave fields_fn out"):
        make(make_table(), fields_fn=fields_fn)
    with pytest.raises(InputError, match="give one"):
        make(Images())
