# SPDX-License-Identifier: Apache-2.0
"""A word's first token carries its tag, and tags of tokens lead back to words."""

import pickle
import unicodedata

import numpy as np
import pytest

from jft.data.fields.padding import IGNORED, Pad
from jft.data.fields.tagging import make_tagging_fields, read_tags
from jft.data.fields.tokens import TextFieldsFn
from jft.types import InputError
from tests.tiny_tokenizer import make_tokenizer

ODD = [
    "\u200d",  # a joiner alone: no token
    "film",
    "\ufe0f",  # a variation selector alone
    "👩\u200d👩\u200d👧",
    "films",
    "中文字",
    "\x00",
    "e\u0301te\u0301",
    "don't",
    "[SEP]",
    "",
    " ",
    "🏳️‍🌈",
    "plot",
]


def make_byte_level(**changes):
    """A byte-level BPE tokenizer as GPT-2's; without special tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "a"), ("Ġ", "f"), ("i", "l"), ("il", "m"), ("f", "ilm")]
    merges += [("Ġf", "ilm"), ("Ġfilm", "s")]
    vocabulary = ["<end>", *letters, *map("".join, merges)]
    ids = {token: i for i, token in enumerate(vocabulary)}
    backend = Tokenizer(models.BPE(ids, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(**changes)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<end>", model_max_length=64
    )


def only(rows):
    """The row of the one example that was given."""
    assert [len(of_example) for of_example in rows] == [1]
    return rows[0][0]


def test_the_first_token_of_a_word_carries_its_tag():
    fields_fn = make_tagging_fields(make_tokenizer(), max_length=9)
    row = only(
        fields_fn([{"words": ["good", "films", "bad-plot"], "targets": [3, 1, 2]}])
    )
    # [CLS] good film ##s bad [UNK] plot [SEP]; a word at a hyphen is three tokens
    assert row["input_ids"].tolist() == [2, 6, 10, 13, 7, 1, 11, 3]
    assert row["targets"].tolist() == [-100, 3, 1, -100, 2, -100, -100, -100]
    assert row["word_tokens"].tolist() == [1, 2, 4]
    model = ["input_ids", "attention_mask", "token_type_ids"]
    assert set(row) == {*model, "word_tokens", "truncated", "targets"}
    assert {values.dtype.name for values in row.values()} == {"int32"}
    assert row["truncated"] == 0
    assert set(only(fields_fn([{"words": ["good"]}]))) == set(row) - {"targets"}
    assert fields_fn([]) == []


def test_what_a_table_needs_to_know():
    fields_fn = make_tagging_fields(make_tokenizer(padding_side="left"), max_length=8)
    assert isinstance(fields_fn, TextFieldsFn)
    assert fields_fn.padding["targets"] == Pad(IGNORED, "input")
    assert fields_fn.padding_side == "right"
    assert fields_fn.host_fields == ("word_tokens", "truncated")
    assert fields_fn.settings["max_length"] == 8


def test_cut_words_have_no_token():
    fields_fn = make_tagging_fields(make_tokenizer(), max_length=5)
    examples = [{"words": ["a", "films", "bad"], "targets": [1, 2, 3]}]
    examples.append({"words": ["a", "good", "films", "bad"], "targets": [1, 2, 3, 4]})
    (first,), (second,) = fields_fn(examples)
    assert first["word_tokens"].tolist() == [1, 2, -1]
    assert second["word_tokens"].tolist() == [1, 2, 3, -1]  # the last word lost its "s"
    assert second["targets"].tolist() == [-100, 1, 2, 3, -100]
    assert (first["truncated"], second["truncated"]) == (1, 1)


def test_a_left_cut_keeps_the_last_words():
    tokenizer = make_tokenizer(truncation_side="left")
    fields_fn = make_tagging_fields(tokenizer, max_length=4)
    row = only(fields_fn([{"words": ["a", "good", "bad"], "targets": [1, 2, 3]}]))
    assert row["word_tokens"].tolist() == [-1, 1, 2]
    assert row["targets"].tolist() == [-100, 2, 3, -100]


def joined(tokens):
    """WordPieces as the word they are of, in the tokenizer's normal form."""
    return "".join(token.removeprefix("##") for token in tokens)


def plain(word):
    """A word without what BERT's normalizer removes, by the rules of its paper."""
    letters = unicodedata.normalize("NFD", word.lower())
    return "".join(c for c in letters if unicodedata.category(c) not in ("Mn", "Cf"))


@pytest.mark.parametrize("name", ["tiny", "minilm"])
def test_words_without_tokens_shift_no_others(name, request):
    tokenizer = (
        make_tokenizer() if name == "tiny" else request.getfixturevalue("minilm")
    )
    tags = np.arange(len(ODD), dtype=np.int32)
    row = only(
        make_tagging_fields(tokenizer, max_length=32)([{"words": ODD, "targets": tags}])
    )
    tokens = tokenizer.convert_ids_to_tokens(row["input_ids"].tolist())
    empty = [0, 2, 6, 10, 11]
    assert np.flatnonzero(row["word_tokens"] < 0).tolist() == empty
    kept = row["word_tokens"][row["word_tokens"] >= 0]
    assert (np.diff(kept) > 0).all()
    ends = [*kept[1:], len(tokens) - 1]
    words = [word for i, word in enumerate(ODD) if i not in empty]
    tag_of = [i for i in range(len(ODD)) if i not in empty]
    for word, tag, start, end in zip(words, tag_of, kept, ends, strict=True):
        assert row["targets"][start] == tag
        assert (row["targets"][start + 1 : end] == IGNORED).all()
        if "[UNK]" not in tokens[start:end]:
            assert joined(tokens[start:end]).lower() == plain(word)
    assert tokens[row["word_tokens"][-1]] == "plot"
    assert tokens[row["word_tokens"][1]] == "film"


def test_many_examples_are_those_of_one_at_a_time(minilm):
    fields_fn = make_tagging_fields(minilm, max_length=16)
    examples = [{"words": ODD[i:], "targets": np.arange(14 - i)} for i in range(14)]
    copied = pickle.loads(pickle.dumps(fields_fn))
    for found, example in zip(fields_fn(examples), examples, strict=True):
        alone = only(copied([example]))
        for field, expected in alone.items():
            np.testing.assert_array_equal(found[0][field], expected)


# --- tokenizers that mark the space before a word -------------------------------------
@pytest.mark.parametrize("changes", [{"add_prefix_space": False}, {}])
def test_byte_level_words_are_those_behind_a_space(changes):
    tokenizer = make_byte_level(**changes)
    fields_fn = make_tagging_fields(tokenizer, max_length=16)
    row = only(fields_fn([{"words": ["a", "films", "é"], "targets": [1, 2, 3]}]))
    expected = ["Ġa", "Ġfilms", "Ġ", "Ã", "©"]
    assert tokenizer.convert_ids_to_tokens(row["input_ids"].tolist()) == expected
    assert row["targets"].tolist() == [1, 2, 3, -100, -100]
    # no piece that a text of these words would not have
    spaced = tokenizer(" a films é", add_special_tokens=False)["input_ids"]
    assert row["input_ids"].tolist() == spaced[-5:]


def test_other_tokenizers_get_the_words_as_they_are(minilm):
    for tokenizer in (make_tokenizer(), minilm):
        assert make_tagging_fields(tokenizer, max_length=8).prefix == ""
    assert make_tagging_fields(make_byte_level(), max_length=8).prefix == ""
    unspaced = make_byte_level(add_prefix_space=False)
    assert make_tagging_fields(unspaced, max_length=8).prefix == " "


# --- back to words --------------------------------------------------------------------
def test_tags_of_words():
    names = ("B-PER", "I-PER", "O")
    assert read_tags(np.array([2, 0, 1, 2, 0, 0]), np.array([1, 2, -1, 4]), names) == [
        "B-PER",
        "I-PER",
        "O",
        "B-PER",
    ]
    assert read_tags(np.array([1]), np.array([-1, 0]), ("noun", "verb")) == [
        "noun",
        "verb",
    ]
    assert read_tags(np.zeros(0, int), np.array([-1]), names) == ["O"]


def test_targets_read_back_are_the_tags(minilm):
    names = ("O", *(f"T{i}" for i in range(1, len(ODD))))
    tags = np.arange(len(ODD), dtype=np.int32)
    fields_fn = make_tagging_fields(minilm, max_length=40)
    row = only(fields_fn([{"words": ODD, "targets": tags}]))
    found = read_tags(row["targets"], row["word_tokens"], names)
    empty = {0, 2, 6, 10, 11}
    assert found == ["O" if i in empty else name for i, name in enumerate(names)]


# --- real sentences -------------------------------------------------------------------
def read_sentences(path, number):
    """The first sentences of a CoNLL file: a word and its tag a line."""
    sentences, words, tags = [], [], []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip():
            *_, word, tag = line.split()
            words.append(word.removeprefix("en:"))
            tags.append(tag)
        elif words:
            sentences.append((words, tags))
            words, tags = [], []
    return sentences[:number]


def test_real_sentences_are_aligned_as_word_by_word(minilm, shared_data):
    file = shared_data / "wikiann-en" / "test.txt"
    sentences = read_sentences(file, 200)
    assert len(sentences) == 200
    names = sorted({tag for _, tags in sentences for tag in tags})
    examples = [
        {"words": words, "targets": np.array([names.index(tag) for tag in tags])}
        for words, tags in sentences
    ]
    rows = make_tagging_fields(minilm, max_length=64)(examples)
    for (row,), example in zip(rows, examples, strict=True):
        ids, targets = [minilm.cls_token_id], [IGNORED]
        for word, tag in zip(example["words"], example["targets"], strict=True):
            pieces = minilm(word, add_special_tokens=False)["input_ids"]
            ids += pieces
            targets += [tag, *[IGNORED] * (len(pieces) - 1)] if pieces else []
        ids, targets = [*ids[:63], minilm.sep_token_id], [*targets[:63], IGNORED]
        assert row["input_ids"].tolist() == ids
        assert row["targets"].tolist() == targets
        # the recipe of transformers' examples, by word_ids()
        encoded = minilm(
            example["words"], is_split_into_words=True, truncation=True, max_length=64
        )
        before, expected = None, []
        for word in encoded.word_ids():
            is_first = word is not None and word != before
            expected.append(example["targets"][word] if is_first else IGNORED)
            before = word
        assert row["targets"].tolist() == expected


def test_bad_input_is_refused():
    from transformers import ByT5Tokenizer

    with pytest.raises(InputError, match="token classification needs a fast tokenizer"):
        make_tagging_fields(ByT5Tokenizer(), max_length=8)
    with pytest.raises(InputError, match="max_length is 33 tokens"):
        make_tagging_fields(make_tokenizer(), max_length=33)
