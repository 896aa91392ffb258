# SPDX-License-Identifier: Apache-2.0
"""Each token of a text is asked for once, behind its past, wherever it is cut."""

import itertools
import pickle

import jax.numpy as jnp
import numpy as np
import pytest

from jft.data.fields.language import make_language_fields
from jft.data.fields.padding import IGNORED
from jft.train.losses import softmax_cross_entropy
from jft.types import InputError
from tests.data.fields.bytes_tokenizer import SENTENCES, make_bytes_tokenizer
from tests.tiny_tokenizer import make_tokenizer

EXAMPLES = [{"text": text} for text in [*SENTENCES, "a"]]
LENGTHS = [(1, 0), (3, 0), (3, 1), (3, 2), (7, 0), (7, 3), (64, 0), (64, 63), (500, 9)]


def documents(tokenizer):
    """Every document's tokens, as they would stand in one long row."""
    eos = tokenizer.eos_token_id
    return [[*tokenizer(example["text"])["input_ids"], eos] for example in EXAMPLES]


@pytest.mark.parametrize(("max_length", "overlap"), LENGTHS)
def test_every_token_but_the_first_is_asked_for_once_behind_its_past(
    max_length, overlap
):
    tokenizer = make_bytes_tokenizer()
    fields_fn = make_language_fields(tokenizer, max_length=max_length, overlap=overlap)
    found = fields_fn(EXAMPLES)
    for tokens, rows in zip(documents(tokenizer), found, strict=True):
        place = 0  # of the next token that is asked for, less one
        for number, row in enumerate(rows):
            ids, targets = row["input_ids"], row["targets"]
            assert {x.dtype.name for x in row.values()} == {"int32"}
            assert ids.shape == targets.shape == row["attention_mask"].shape
            assert 0 < len(ids) <= max_length
            assert row["attention_mask"].all()
            context = overlap if number else 0
            start = place - context
            assert ids.tolist() == tokens[start : start + len(ids)]
            assert (targets[:context] == IGNORED).all()
            asked = targets[context:].tolist()
            assert asked == tokens[place + 1 : place + 1 + len(asked)]
            assert asked
            place += len(asked)
        assert place == len(tokens) - 1
        assert [len(row["input_ids"]) for row in rows[:-1]] == [max_length] * (
            len(rows) - 1
        )


@pytest.mark.parametrize(("max_length", "overlap"), LENGTHS)
def test_perplexity_of_a_split_is_that_of_its_documents(max_length, overlap):
    """By a model that looks at one token, which no cut can disturb."""
    tokenizer = make_bytes_tokenizer()
    logits = np.random.default_rng(0).normal(size=(len(tokenizer),) * 2) * 3
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    by_hand = [
        log_probs[before, after]
        for tokens in documents(tokenizer)
        for before, after in itertools.pairwise(tokens)
    ]
    fields_fn = make_language_fields(tokenizer, max_length=max_length, overlap=overlap)
    total, weight = 0.0, 0.0
    for row in itertools.chain(*fields_fn(EXAMPLES)):
        asked = row["targets"] != IGNORED
        loss, count = softmax_cross_entropy(
            jnp.asarray(logits[row["input_ids"]], jnp.float32),
            jnp.asarray(np.where(asked, row["targets"], 0)),
            loss_mask=asked.astype(np.float32),
        )
        total, weight = total + float(loss), weight + float(count)
    assert weight == len(by_hand)
    np.testing.assert_allclose(
        np.exp(total / weight), np.exp(-np.mean(by_hand)), rtol=1e-5
    )


@pytest.mark.parametrize("template", ["<bos> $A", "<bos> $A <eos>"])
def test_a_text_begins_and_ends_once(template):
    tokenizer = make_bytes_tokenizer("<bos>", template=template, bos_token="<bos>")
    text = tokenizer("a fox", add_special_tokens=False)["input_ids"]
    [[row]] = make_language_fields(tokenizer, max_length=32)([{"text": "a fox"}])
    assert row["input_ids"].tolist() == [tokenizer.bos_token_id, *text]
    assert row["targets"].tolist() == [*text, tokenizer.eos_token_id]


def test_a_text_without_a_token_asks_for_nothing():
    [[row]] = make_language_fields(make_bytes_tokenizer(), max_length=4)([{"text": ""}])
    assert [row[name].tolist() for name in ("input_ids", "targets")] == [[0], [IGNORED]]


def test_padding_and_the_tokenizer_of_its_own():
    tokenizer = make_bytes_tokenizer(padding_side="left")
    fields_fn = make_language_fields(tokenizer, max_length=8)
    expected = fields_fn(EXAMPLES)
    tokenizer.add_tokens(["quick brown"])
    copied = pickle.loads(pickle.dumps(fields_fn))
    assert copied.settings == fields_fn.settings
    for rows in (fields_fn(EXAMPLES), copied(EXAMPLES)):
        chained = (itertools.chain(*several) for several in (rows, expected))
        for found, row in zip(*chained, strict=True):
            np.testing.assert_array_equal(found["input_ids"], row["input_ids"])
    assert fields_fn.padding_side == "right"
    assert {name: tuple(pad) for name, pad in fields_fn.padding.items()} == {
        "input_ids": (tokenizer.pad_token_id, "input"),
        "attention_mask": (0, "input"),
        "targets": (IGNORED, "input"),
    }
    without = make_language_fields(make_bytes_tokenizer(pad_token=None), max_length=8)
    assert without.padding["input_ids"].value == tokenizer.eos_token_id


def test_settings_tell_what_the_rows_depend_on():
    tokenizer = make_bytes_tokenizer()
    settings = make_language_fields(tokenizer, max_length=8).settings
    assert make_language_fields(tokenizer, max_length=8).settings == settings
    for changes in ({"max_length": 9}, {"overlap": 1}):
        other = make_language_fields(tokenizer, **{"max_length": 8, **changes})
        assert other.settings != settings


def test_what_cannot_be_is_refused():
    tokenizer = make_bytes_tokenizer(model_max_length=16)
    with pytest.raises(InputError, match=r"max_length is 17 tokens.*at most 16"):
        make_language_fields(tokenizer, max_length=17)
    assert make_language_fields(tokenizer, max_length=8)([]) == []
    for overlap in (-1, 8):
        with pytest.raises(InputError, match=f"overlap is {overlap} tokens"):
            make_language_fields(tokenizer, max_length=8, overlap=overlap)
    with pytest.raises(InputError, match="no end-of-text token"):
        make_language_fields(make_tokenizer(), max_length=8)
