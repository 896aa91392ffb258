# SPDX-License-Identifier: Apache-2.0
"""Tokens or whole words are masked at the paper's rates, special tokens never."""

import itertools
import pickle

import numpy as np
import pytest

from jft.data.fields.masking import MaskTokens, make_mask_tokens, make_masked_fields
from jft.data.fields.padding import IGNORED
from jft.types import InputError
from tests.data.fields.bytes_tokenizer import make_bytes_tokenizer
from tests.tiny_tokenizer import make_tokenizer

DRAWS = 4000
SIGMAS = 5  # one wrong alarm in two million; the seeds are fixed besides
LONG = "a good film not bad plots great cast awful films " * 3


def close_to_binomial(count, trials, probability):
    spread = np.sqrt(trials * probability * (1 - probability))
    return abs(count - trials * probability) <= SIGMAS * spread


def draw(mask_tokens, row, seed=0, draws=DRAWS):
    generator = np.random.default_rng(seed)
    rows = [mask_tokens(row, generator) for _ in range(draws)]
    return (np.stack([row[name] for row in rows]) for name in ("input_ids", "targets"))


# --- pieces of documents --------------------------------------------------------------
@pytest.mark.parametrize("max_length", [3, 4, 7, 32])
def test_pieces_hold_every_token_once_between_special_tokens(max_length):
    tokenizer = make_tokenizer(truncation_side="left")
    fields_fn = make_masked_fields(tokenizer, max_length=max_length)
    texts = [LONG, "film", "[UNK] good"]
    found = fields_fn([{"text": text} for text in texts])
    for text, rows in zip(texts, found, strict=True):
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        inner = [row["input_ids"][1:-1].tolist() for row in rows]
        assert [*itertools.chain(*inner)] == tokens
        assert {len(part) for part in inner[:-1]} <= {max_length - 2}
        for row in rows:
            ends = row["input_ids"][[0, -1]].tolist()
            assert ends == [tokenizer.cls_token_id, tokenizer.sep_token_id]
            assert {x.dtype.name for x in row.values()} == {"int32"}
            assert {len(x) for x in row.values()} == {len(row["input_ids"])}
            assert list(row) == ["input_ids", "attention_mask", "token_type_ids"]


def test_words_are_numbered_over_the_document():
    fields_fn = make_masked_fields(make_tokenizer(), max_length=5, whole_word=True)
    [rows] = fields_fn([{"text": "films plots a"}])
    assert [row["word_ids"].tolist() for row in rows] == [
        [-1, 0, 0, 1, -1],
        [-1, 1, 2, -1],
    ]
    assert fields_fn.host_fields == ("word_ids",)
    plain = make_masked_fields(make_tokenizer(), max_length=5)
    assert plain.host_fields == ()
    assert plain.settings != fields_fn.settings
    assert plain([]) == []


def test_padding_asks_for_nothing():
    tokenizer = make_tokenizer(padding_side="left")
    fields_fn = make_masked_fields(tokenizer, max_length=8)
    assert {name: tuple(pad) for name, pad in fields_fn.padding.items()} == {
        "input_ids": (0, "input"),
        "attention_mask": (0, "input"),
        "token_type_ids": (0, "input"),
        "targets": (IGNORED, "input"),
    }
    assert fields_fn.padding_side == "left"


# --- masks ----------------------------------------------------------------------------
def test_shares_are_those_of_the_draws():
    """Chosen at the rate; of these 80 % masked, 10 % random, 10 % left as they are."""
    num_words = 40
    mask_tokens = MaskTokens(
        mask_id=4, special_ids=(0, 1, 2, 3, 4), vocab_size=25, rate=0.15,
        whole_word=False,
    )  # fmt: skip
    tokens = np.concatenate([[2], 5 + np.arange(num_words) % 20, [3]]).astype(np.int32)
    inputs, targets = draw(mask_tokens, {"input_ids": tokens})
    chosen = targets != IGNORED
    assert (targets[chosen] == np.broadcast_to(tokens, targets.shape)[chosen]).all()
    assert (inputs[~chosen] == np.broadcast_to(tokens, inputs.shape)[~chosen]).all()
    assert not chosen[:, [0, -1]].any()
    trials = DRAWS * num_words
    assert close_to_binomial(chosen.sum(), trials, 0.15)  # none empty: 0.85**40
    by_place = chosen[:, 1:-1].sum(axis=0)
    assert all(close_to_binomial(count, DRAWS, 0.15) for count in by_place)
    was, now = targets[chosen], inputs[chosen]
    masked, kept = now == 4, now == was
    assert close_to_binomial(masked.sum(), len(now), 0.8)
    assert close_to_binomial(kept.sum(), len(now), 0.1 + 0.1 / 20)
    random = now[~masked & ~kept]
    assert random.min() >= 5  # no special token
    counts = np.bincount(random, minlength=25)[5:]
    assert all(close_to_binomial(count, len(random), 1 / 20) for count in counts)


@pytest.mark.parametrize("num_words", [1, 2, 5])
def test_a_short_row_asks_for_one_token_at_least(num_words):
    mask_tokens = make_mask_tokens(make_tokenizer(), rate=0.15)
    tokens = np.array([2, *range(5, 5 + num_words), 3], np.int32)
    _, targets = draw(mask_tokens, {"input_ids": tokens})
    chosen = targets != IGNORED
    assert chosen.any(axis=1).all()
    expected = 0.15 + 0.85**num_words / num_words
    for count in chosen[:, 1:-1].sum(axis=0):
        assert close_to_binomial(count, DRAWS, expected)


def test_special_tokens_are_left_alone():
    tokenizer = make_tokenizer()
    mask_tokens = make_mask_tokens(tokenizer, rate=1.0)
    tokens = np.array([2, 1, 5, 4, 6, 3], np.int32)  # an unknown word and a mask in it
    inputs, targets = draw(mask_tokens, {"input_ids": tokens}, draws=50)
    places = [0, 1, 3, 5]
    assert (inputs[:, places] == tokens[places]).all()
    assert (targets != IGNORED).tolist() == [
        [False, False, True, False, True, False]
    ] * 50
    nothing = np.array([2, 3], np.int32)
    row = mask_tokens({"input_ids": nothing}, np.random.default_rng(0))
    assert row["input_ids"].tolist() == [2, 3]
    assert row["targets"].tolist() == [IGNORED] * 2


def test_whole_words_of_a_real_tokenizer(minilm):
    text = "The unbelievable rereading of antidisestablishmentarianism, reconsidered."
    fields_fn = make_masked_fields(minilm, max_length=64, whole_word=True)
    mask_tokens = make_mask_tokens(minilm, whole_word=True)
    [[row]] = fields_fn([{"text": text}])
    words = row["word_ids"]
    num_words = words.max() + 1
    assert np.bincount(words[words >= 0]).max() > 3  # tokens of a word
    inputs, targets = draw(mask_tokens, row)
    chosen = targets != IGNORED
    for word in range(num_words):
        of_word = chosen[:, words == word]
        assert (of_word.all(axis=1) == of_word.any(axis=1)).all()
        expected = 0.15 + 0.85**num_words / num_words
        assert close_to_binomial(of_word[:, 0].sum(), DRAWS, expected)
    assert not chosen[:, words < 0].any()
    # what a token becomes is drawn for each of a word's
    longest = np.bincount(words[words >= 0]).argmax()
    masked = (inputs == minilm.mask_token_id)[:, words == longest]
    masked = masked[chosen[:, words == longest][:, 0]]
    assert 0 < (masked.any(axis=1) & ~masked.all(axis=1)).mean() < 1


def test_whole_words_need_the_words():
    mask_tokens = make_mask_tokens(make_tokenizer(), whole_word=True)
    row = {"input_ids": np.array([2, 5, 3], np.int32)}
    with pytest.raises(InputError, match=r"need the field word_ids.*\['input_ids'\]"):
        mask_tokens(row, np.random.default_rng(0))


def test_draws_depend_on_the_generator_alone_and_leave_the_row_as_it_is():
    tokenizer = make_tokenizer()
    [[row, *_]] = make_masked_fields(tokenizer, max_length=16)([{"text": LONG}])
    for x in row.values():
        x.setflags(write=False)  # as a memory-mapped table has them
    mask_tokens = make_mask_tokens(tokenizer)
    copied = pickle.loads(pickle.dumps(mask_tokens))
    found = [
        change(row, np.random.default_rng(seed))
        for change, seed in ((mask_tokens, 0), (copied, 0), (mask_tokens, 1))
    ]
    for name in ("input_ids", "targets"):
        np.testing.assert_array_equal(found[0][name], found[1][name])
        assert found[0][name].dtype == np.int32
    assert found[0]["targets"].tolist() != found[2]["targets"].tolist()
    assert found[0]["token_type_ids"] is row["token_type_ids"]
    assert "targets" not in row
    assert copied == mask_tokens


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="has no mask"):
        make_mask_tokens(make_bytes_tokenizer())
    for rate in (0.0, 1.5):
        with pytest.raises(InputError, match=f"rate of masks is {rate}"):
            make_mask_tokens(make_tokenizer(), rate=rate)
    with pytest.raises(InputError, match=r"max_length is 2 tokens"):
        make_masked_fields(make_tokenizer(), max_length=2)
