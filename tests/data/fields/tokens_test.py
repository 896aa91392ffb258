# SPDX-License-Identifier: Apache-2.0
"""Texts become the tokens that transformers makes of them; a cut is counted."""

import pickle
import threading
import time

import numpy as np
import pytest

from jft.data import make_text_fields
from jft.data.fields.padding import Pad
from jft.data.fields.tokens import TextFieldsFn, check_fast
from jft.types import InputError
from tests.tiny_tokenizer import make_tokenizer

EXAMPLE = {"text": "A good film", "targets": np.int32(1), "index": 4}


def make_slow_tokenizer():
    from transformers import ByT5Tokenizer  # of bytes: needs no vocabulary

    return ByT5Tokenizer()


def only(rows):
    """The row of the one example that was given."""
    assert [len(of_example) for of_example in rows] == [1]
    return rows[0][0]


def values(row, *names):
    return [row[name].tolist() for name in names]


def test_fields_of_one_text():
    fields_fn = make_text_fields(make_tokenizer(), max_length=8)
    row = only(fields_fn([EXAMPLE]))
    assert {n: (v.dtype.name, v.shape) for n, v in row.items()} == {
        "input_ids": ("int32", (5,)),
        "attention_mask": ("int32", (5,)),
        "token_type_ids": ("int32", (5,)),
        "truncated": ("int32", ()),
        "targets": ("int32", ()),
    }
    assert values(row, "input_ids", "attention_mask") == [[2, 5, 6, 10, 3], [1] * 5]
    assert (row["targets"], row["truncated"]) == (1, 0)
    assert "targets" not in only(fields_fn([{"text": "film"}]))
    assert fields_fn([]) == []


def test_what_a_table_needs_to_know():
    tokenizer = make_tokenizer()
    tokenizer._pad_token_type_id = 3  # as XLNet's class has it
    fields_fn = make_text_fields(tokenizer, max_length=8)
    assert isinstance(fields_fn, TextFieldsFn)
    assert fields_fn.padding == {
        "input_ids": Pad(0, "input"),
        "attention_mask": Pad(0, "input"),
        "token_type_ids": Pad(3, "input"),
    }
    assert (fields_fn.padding_side, fields_fn.host_fields) == ("right", ("truncated",))
    changes = {"model_input_names": ["input_ids"], "padding_side": "left"}
    fields_fn = make_text_fields(make_tokenizer(**changes), max_length=8)
    assert set(fields_fn.padding) == {"input_ids", "attention_mask"}
    assert fields_fn.padding_side == "left"
    row = only(fields_fn([{"text": "film"}]))
    assert set(row) == {"input_ids", "attention_mask", "truncated"}


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        (2, "int32"),
        (np.int64(2), "int32"),
        (0.5, "float32"),
        (np.array([1.0, 0.0]), "float32"),
    ],
)
def test_targets_of_every_kind(given, dtype):
    fields_fn = make_text_fields(make_tokenizer(), max_length=8)
    targets = only(fields_fn([{"text": "film", "targets": given}]))["targets"]
    assert targets.dtype == dtype
    np.testing.assert_array_equal(targets, given)


def test_a_pair_and_truncation_of_the_longer_text():
    fields_fn = make_text_fields(make_tokenizer(), max_length=8)
    row = only(fields_fn([{"text": "a good film not", "text_pair": "bad plot"}]))
    assert values(row, "input_ids", "token_type_ids", "attention_mask") == [
        [2, 5, 6, 10, 3, 7, 11, 3],
        [0, 0, 0, 0, 0, 1, 1, 1],
        [1, 1, 1, 1, 1, 1, 1, 1],
    ]
    assert row["truncated"] == 1


TOKENIZERS = {
    "right": make_tokenizer,
    "left": lambda: make_tokenizer(padding_side="left"),
    "without types": lambda: make_tokenizer(
        model_input_names=["input_ids", "attention_mask"]
    ),
    "cut on the left": lambda: make_tokenizer(truncation_side="left"),
    "slow": make_slow_tokenizer,
}
TEXTS = [("film", None), ("a good good film not bad", None), ("a", "b"), ("good", None)]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_equals_transformers_one_text_at_a_time(name):
    tokenizer = TOKENIZERS[name]()
    fields_fn = make_text_fields(tokenizer, max_length=7)
    rows = fields_fn([{"text": text, "text_pair": pair} for text, pair in TEXTS])
    for row, (text, pair) in zip(rows, TEXTS, strict=True):
        expected = tokenizer(text, pair, truncation=True, max_length=7)
        (found,) = row
        uncut = len(tokenizer(text, pair)["input_ids"])
        assert found.pop("truncated") == (uncut > 7)
        assert set(found) == set(expected)
        for field, tokens in expected.items():
            assert found[field].tolist() == tokens


@pytest.mark.parametrize("make", [make_tokenizer, make_slow_tokenizer])
def test_only_a_text_that_lost_tokens_counts_as_truncated(make):
    fields_fn = make_text_fields(make(), max_length=6)
    texts = ["a a a a", "a a a a a"] if make is make_tokenizer else ["aaaaa", "aaaaaa"]
    (exact,), (longer,) = fields_fn([{"text": text} for text in texts])
    assert len(exact["input_ids"]) == len(longer["input_ids"]) == 6
    assert (exact["truncated"], longer["truncated"]) == (0, 1)


def test_settings_tell_tokenizers_and_lengths_apart():
    tokenizer = make_tokenizer()
    settings = make_text_fields(tokenizer, max_length=8).settings
    tokenizer("a", truncation=True, max_length=3, padding="max_length")
    assert make_text_fields(tokenizer, max_length=8).settings == settings
    assert make_text_fields(make_tokenizer(), max_length=8).settings == settings
    assert make_text_fields(tokenizer, max_length=9).settings != settings
    for changes in (
        {"padding_side": "left"},
        {"pad_token": "[UNK]"},
        {"model_input_names": ["input_ids", "attention_mask"]},
    ):
        other = make_text_fields(make_tokenizer(**changes), max_length=8)
        assert other.settings["tokenizer"] != settings["tokenizer"]
    tokenizer.add_tokens(["plot twist"])
    other = make_text_fields(tokenizer, max_length=8)
    assert other.settings["tokenizer"] != settings["tokenizer"]


def test_settings_tell_slow_tokenizers_apart():
    from transformers import ByT5Tokenizer

    tokenizers = [ByT5Tokenizer(), ByT5Tokenizer(), ByT5Tokenizer(extra_ids=5)]
    tokenizers.append(ByT5Tokenizer(do_lower_case=True))
    tokenizers.append(ByT5Tokenizer())
    tokenizers[-1].add_tokens(["film"])
    found = [
        make_text_fields(t, max_length=8).settings["tokenizer"] for t in tokenizers
    ]
    assert found[0] == found[1]
    assert len(set(found)) == 4


def test_it_has_a_tokenizer_of_its_own_and_can_be_pickled():
    tokenizer = make_tokenizer()
    fields_fn = make_text_fields(tokenizer, max_length=8)
    expected = only(fields_fn([EXAMPLE]))
    copied = pickle.loads(pickle.dumps(fields_fn))
    tokenizer.padding_side = "left"
    tokenizer.add_tokens(["good film"])
    for found in (only(fields_fn([EXAMPLE])), only(copied([EXAMPLE]))):
        for name, tokens in expected.items():
            np.testing.assert_array_equal(found[name], tokens)
    assert copied.settings == fields_fn.settings


def test_threads_call_the_tokenizer_one_at_a_time():
    fields_fn = make_text_fields(make_tokenizer(), max_length=8)
    tokenizer = fields_fn.tokenizer
    inside, most = [], []

    def slowly(*args, **options):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.01)
        inside.pop()
        return tokenizer(*args, **options)

    fields_fn.tokenizer = slowly
    threads = [threading.Thread(target=fields_fn, args=([EXAMPLE],)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]


def test_a_tokenizer_without_padding_uses_the_end_of_text():
    tokenizer = make_tokenizer(pad_token=None, eos_token="[MASK]")
    assert make_text_fields(tokenizer, max_length=6).padding["input_ids"] == Pad(4)
    with pytest.raises(InputError, match="neither a padding nor an end-of-text"):
        make_text_fields(make_tokenizer(pad_token=None), max_length=6)


@pytest.mark.parametrize("max_length", [2, 0, 33])
def test_lengths_that_cannot_be_are_refused(max_length):
    with pytest.raises(
        InputError, match=f"{max_length} tokens.*the 2 special.*at most 32"
    ):
        make_text_fields(make_tokenizer(), max_length=max_length)
    unknown = make_tokenizer(model_max_length=None)
    if max_length > 2:
        make_text_fields(unknown, max_length=max_length)


def test_a_slow_tokenizer_is_refused_where_a_fast_one_is_needed():
    check_fast(make_tokenizer(), "token classification")
    with pytest.raises(
        InputError, match=r"^token class.*ByT5Tokenizer.*tokenizer\.json"
    ):
        check_fast(make_slow_tokenizer(), "token classification")
