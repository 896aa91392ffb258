# SPDX-License-Identifier: Apache-2.0
"""Each question of a SQuAD file is a row with its context and its answers."""

import json
import pickle

import pytest

from jft.data import (
    Source,
)
from jft.data.sources.squad import load_squad


def question(name, *answers, **more):
    spans = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": name, "question": f"{name}?", "answers": spans, **more}


@pytest.fixture
def write(tmp_path):
    def write_file(articles):
        (tmp_path / "a.json").write_text(json.dumps({"data": articles}))
        return tmp_path / "a.json"

    return write_file


ARTICLES = [
    {
        "title": "Ants",
        "paragraphs": [
            {
                "context": "Ants are small.",
                "qas": [question("a", ("small", 9), ("are small", 5)), question("b")],
            },
            {
                "context": "They dig.",
                "qas": [question("c", is_impossible=True, plausible_answers=[5])],
            },
        ],
    },
    {
        "paragraphs": [
            {"context": "Bees fly.", "qas": [question("d", ("fly", 5))]},
            {"context": "Never asked.", "qas": []},
        ]
    },
]


def test_a_row_a_question(write):
    source = load_squad(write(ARTICLES))
    assert isinstance(source, Source)
    assert source.columns == ("id", "title", "context", "question", "answers")
    assert source[0] == {
        "id": "a",
        "title": "Ants",
        "context": "Ants are small.",
        "question": "a?",
        "answers": {"text": ["small", "are small"], "answer_start": [9, 5]},
    }
    assert list(source.column("id")) == list("abcd")
    none = {"text": [], "answer_start": []}
    assert [source[i]["answers"] for i in (1, 2)] == [none, none]
    assert source[2]["context"] == "They dig."
    assert list(source.column("title")) == ["Ants"] * 3 + ["article 2"]
    assert source.where(3, "answers") == "a.json, question 'd', column 'answers'"
    again = pickle.loads(pickle.dumps(source))
    assert (repr(again), again[3]) == (repr(source), source[3])


def test_questions_without_answers_are_for_prediction(write):
    entry = {"id": "a", "question": "Who?"}
    articles = [{"title": "T", "paragraphs": [{"context": "Anna.", "qas": [entry]}]}]
    source = load_squad(write(articles))
    assert source.columns == ("id", "title", "context", "question")
    assert source[0] == {**entry, "title": "T", "context": "Anna."}


def test_faulty_questions_can_be_left_out(write):
    entries = [question("a", ("b", 0)), {"id": "c"}, question("a"), question("d")]
    articles = [{"title": "T", "paragraphs": [{"context": "b", "qas": entries}]}]
    source = load_squad(write(articles), on_error="skip")
    assert list(source.column("id")) == ["a", "d"]
    assert source.num_skipped == 2
    assert "question 'c'" in source.skipped[0]


def test_xquad(shared_data):
    source = load_squad(shared_data / "xquad" / "xquad.en.json")
    assert len(source) == 1190
    assert len(set(source.column("title"))) == 48
    assert len(set(source.column("context"))) == 240
    for index in range(len(source)):
        row = source[index]
        assert row["answers"]["text"]
        for text, start in zip(*row["answers"].values(), strict=True):
            assert row["context"][start : start + len(text)] == text
