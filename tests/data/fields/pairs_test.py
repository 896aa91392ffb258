# SPDX-License-Identifier: Apache-2.0
"""A pair is two texts of their own; pairs of few examples are balanced and true."""

import collections
import pickle

import numpy as np
import pytest

from jft.data.fields.pairs import few_shot_pairs, make_sentence_pair_fields
from jft.types import InputError
from tests.tiny_tokenizer import make_tokenizer

MODEL_FIELDS = ("input_ids", "attention_mask", "token_type_ids")


# --- fields ---------------------------------------------------------------------------
def test_each_sentence_is_a_text_of_its_own():
    tokenizer = make_tokenizer()
    fields_fn = make_sentence_pair_fields(tokenizer, max_length=5)
    pairs = [("a good film", "bad"), ("film", "a bad film not"), ("plot", "cast")]
    found = fields_fn([{"text": a, "text_pair": b} for a, b in pairs])
    for pair, [row] in zip(pairs, found, strict=True):
        for text, prefix in zip(pair, ("", "pair_"), strict=True):
            expected = tokenizer(text, truncation=True, max_length=5)
            for name in MODEL_FIELDS:
                assert row[prefix + name].tolist() == expected[name]
        assert "targets" not in row
        assert row["truncated"] == any(len(text.split()) > 3 for text in pair)
        assert {np.asarray(x).dtype.name for x in row.values()} == {"int32"}
    assert fields_fn([]) == []


def test_targets_and_what_pads_each_side():
    tokenizer = make_tokenizer(padding_side="left")
    fields_fn = make_sentence_pair_fields(tokenizer, max_length=5)
    example = {"text": "film", "text_pair": "plot", "targets": np.float32(0.25)}
    [[row]] = fields_fn([example])
    assert row["targets"] == np.float32(0.25)
    assert row["targets"].dtype == np.float32
    assert {name: tuple(pad) for name, pad in fields_fn.padding.items()} == {
        **dict.fromkeys(MODEL_FIELDS, (0, "input")),
        **{f"pair_{name}": (0, "pair") for name in MODEL_FIELDS},
    }
    assert fields_fn.padding_side == "left"
    assert fields_fn.host_fields == ("truncated",)
    [[other]] = pickle.loads(pickle.dumps(fields_fn))([example])
    assert other.keys() == row.keys()
    with pytest.raises(InputError, match="max_length is 2 tokens"):
        make_sentence_pair_fields(tokenizer, max_length=2)


# --- pairs of few examples ------------------------------------------------------------
class Reviews:
    """Examples of three classes, in no order."""

    class_names = ("bad", "fair", "good")

    def __init__(self, targets):
        self.targets = np.asarray(targets, np.int32)

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return {"text": f"text {index}", "targets": self.targets[index]}

    def __repr__(self):
        return f"Reviews({self.targets.tolist()})"

    def column(self, name):
        return [self[i][name] for i in range(len(self))]

    def where(self, index, column):
        return f"train.csv, line {index + 2}, column {column!r}"


REVIEWS = Reviews([2, 0, 0, 1, 2, 0, 1, 0, 2, 2])


@pytest.mark.parametrize("pairs_per_example", [2, 4, 12, 20])
def test_pairs_are_balanced_and_true(pairs_per_example):
    pairs = few_shot_pairs(REVIEWS, pairs_per_example=pairs_per_example, seed=0)
    number = {f"text {i}": i for i in range(len(REVIEWS))}
    half = pairs_per_example // 2
    partners = collections.defaultdict(collections.Counter)
    for row in range(len(pairs)):
        pair = pairs[row]
        first, second = number[pair["text"]], number[pair["text_pair"]]
        assert first != second
        same = REVIEWS.targets[first] == REVIEWS.targets[second]
        assert pair["targets"] == (1.0 if same else 0.0)
        assert isinstance(pair["targets"], float)
        partners[first, bool(same)][second] += 1
    for first, target in enumerate(REVIEWS.targets):
        for same in (True, False):
            counts = partners[first, same]
            assert counts.total() == half
            possible = int((REVIEWS.targets == target).sum()) - 1
            possible = possible if same else len(REVIEWS) - possible - 1
            # all once before any twice
            assert len(counts) == min(half, possible)
            assert max(counts.values()) == -(-half // possible)


def test_every_partner_is_as_likely():
    drawn = np.zeros((len(REVIEWS), len(REVIEWS)))
    for seed in range(400):
        pairs = few_shot_pairs(REVIEWS, pairs_per_example=2, seed=seed)
        np.add.at(drawn, tuple(pairs.pairs.T), 1)
    same = REVIEWS.targets[:, None] == REVIEWS.targets[None]
    np.fill_diagonal(same, False)
    for possible in (same, ~same & ~np.eye(len(REVIEWS), dtype=bool)):
        expected = possible * 400 / possible.sum(axis=1, keepdims=True)
        spread = np.sqrt(expected * (1 - expected / 400))
        assert (abs(drawn - expected)[possible] <= 5 * spread[possible]).all()
    assert (np.diag(drawn) == 0).all()


def test_it_is_a_source_that_the_seed_alone_decides():
    pairs = few_shot_pairs(REVIEWS, pairs_per_example=4, seed=0)
    again = few_shot_pairs(REVIEWS, pairs_per_example=4, seed=0)
    other = few_shot_pairs(REVIEWS, pairs_per_example=4, seed=1)
    assert repr(pairs) == repr(again) == repr(pickle.loads(pickle.dumps(pairs)))
    assert repr(pairs) != repr(other)
    assert "Reviews(" in repr(pairs)
    assert pairs.columns == ("text", "text_pair", "targets")
    assert len(pairs) == 40
    for name in pairs.columns:
        assert pairs.column(name) == [pairs[i][name] for i in range(40)]
    second = int(pairs[7]["text_pair"].split()[1]) + 2
    assert pairs.where(7, "text") == "train.csv, line 3, column 'text'"
    assert pairs.where(7, "text_pair") == f"train.csv, line {second}, column 'text'"
    assert pairs.where(7, "targets").startswith("train.csv, line 3, column 'text', bes")
    with pytest.raises(InputError, match="no column 'label'"):
        pairs.column("label")


def test_what_cannot_be_paired_is_refused():
    for number in (0, 3):
        with pytest.raises(InputError, match=f"pairs_per_example is {number}"):
            few_shot_pairs(REVIEWS, pairs_per_example=number, seed=0)
    with pytest.raises(InputError, match=r"\{'bad': 2, 'good': 1\}"):
        few_shot_pairs(Reviews([0, 0, 2]), pairs_per_example=2, seed=0)
    with pytest.raises(InputError, match=r"\{'fair': 3\}.*two classes"):
        few_shot_pairs(Reviews([1, 1, 1]), pairs_per_example=2, seed=0)
    numbers = Reviews([0, 0, 1, 1])
    numbers.targets = np.array([0.5, 1.0, 0.0, 0.0], np.float32)
    with pytest.raises(InputError, match="no class for each example"):
        few_shot_pairs(numbers, pairs_per_example=2, seed=0)
