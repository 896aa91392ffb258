# SPDX-License-Identifier: Apache-2.0
"""Tagged words are read as sentences that know their lines."""

import pickle

import pytest

from jft.data import (
    Source,
)
from jft.data.sources import blocks
from jft.data.sources.conll import load_conll

TEXT = """-DOCSTART- -X- O O

EU NNP I-NP B-ORG
rejects VBZ I-VP O

-DOCSTART- -X- O O

Peter NNP I-NP B-PER


\u2028 NN I-NP O
. . O O"""
WORDS = [["EU", "rejects"], ["Peter"], ["\u2028", "."]]
TAGS = [["B-ORG", "O"], ["B-PER"], ["O", "O"]]


@pytest.fixture
def write(tmp_path):
    def write_file(text):
        (tmp_path / "a.txt").write_text(text, encoding="utf-8", newline="")
        return tmp_path / "a.txt"

    return write_file


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\n \n"])
@pytest.mark.parametrize("chunk", [1, 50, 1 << 20])
def test_sentences(line_end, chunk, write, monkeypatch):
    monkeypatch.setattr(blocks, "CHUNK", chunk)
    text = TEXT.replace("\n", line_end)
    if line_end == "\n \n":  # a line of spaces ends a sentence too
        text = TEXT.replace("\n\n", "\n \n")
    source = load_conll(write(text))
    assert isinstance(source, Source)
    assert source.columns == ("words", "tags")
    assert list(source.column("words")) == WORDS
    assert list(source.column("tags")) == TAGS
    places = [source.where(i, "tags") for i in range(3)]
    assert places == [f"a.txt, line {n}, column 'tags'" for n in (3, 8, 11)]
    again = pickle.loads(pickle.dumps(source))
    assert (repr(again), again[1]) == (repr(source), source[1])


def test_columns_by_position(write):
    path = write(TEXT)
    source = load_conll(path, token_column=-4, tag_column=1)
    assert source[0] == {"words": ["EU", "rejects"], "tags": ["NNP", "VBZ"]}
    untagged = load_conll(path, tag_column=None)
    assert untagged.columns == ("words",)
    assert untagged[2] == {"words": ["\u2028", "."]}
    assert len({repr(load_conll(path)), repr(source), repr(untagged)}) == 3
    assert load_conll(write("a\nb\n\nc"), tag_column=None)[1] == {"words": ["c"]}


def test_delimiter_and_prefix(write):
    source = load_conll(
        write("en:New York\tB-LOC\nen:x\tO\n"), delimiter="\t", prefix="en:"
    )
    assert source[0] == {"words": ["New York", "x"], "tags": ["B-LOC", "O"]}


def test_sentences_with_a_faulty_line_can_be_left_out(write):
    text = "a O\n\nb\nc O\nd\n\ne O\nf O x\n\n-DOCSTART- O\ng B\nh O\n\ni\n"
    source = load_conll(write(text), on_error="skip")
    assert list(source.column("words")) == [["a"], ["g", "h"]]
    assert source.where(1, "words") == "a.txt, line 11, column 'words'"
    assert source.num_skipped == 3  # sentences, not lines
    lines = [message.partition(", line ")[2].split()[0] for message in source.skipped]
    assert lines == ["3", "8", "14"]


@pytest.mark.parametrize(
    ("name", "num_sentences"), [("train", 20_000), ("dev", 10_000), ("test", 10_000)]
)
def test_wikiann(shared_data, name, num_sentences):
    source = load_conll(shared_data / "wikiann-en" / f"{name}.txt", prefix="en:")
    assert len(source) == num_sentences
    tags = {tag for tags in source.column("tags") for tag in tags}
    kinds = {f"{place}-{kind}" for place in "BI" for kind in ("LOC", "ORG", "PER")}
    assert tags == {"O", *kinds}
