# SPDX-License-Identifier: Apache-2.0
"""Objects of JSON are rows that know their line; others are named or left out."""

import json
import pickle

import pytest

from jft.data import (
    Source,
)
from jft.data.sources import blocks
from jft.data.sources.jsonl import load_jsonl

ROWS = [
    {"text": "a\n\u2028😀", "targets": 1, "words": ["a"], "more": None},
    {"text": None, "targets": 0.5, "words": [], "more": {"x": 1}},
    {"text": "c", "targets": None, "words": ["é", "b"], "more": {"x": [1]}},
]


def write(path, rows, **dump_options):
    lines = [json.dumps(row, **dump_options) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_keys_are_columns(chunk, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "CHUNK", chunk)
    path = tmp_path / "a.jsonl"
    for ascii_only in (True, False):
        source = load_jsonl(write(path, ROWS, ensure_ascii=ascii_only))
        assert isinstance(source, Source)
        assert source.columns == ("text", "targets", "words", "more")
        assert [source[i] for i in range(len(source))] == ROWS
        assert list(source.column("targets")) == [1, 0.5, None]
        assert source.where(2, "text") == "a.jsonl, line 3, column 'text'"


def test_blank_lines_the_mark_and_the_order_of_keys(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('\ufeff\n{"a": 1, "b": 2}\r\n\r\n \n{"b": 4, "a": 3}')
    source = load_jsonl(path)
    assert list(source.column("a")) == [1, 3]
    assert [source.where(i, "a") for i in range(2)] == [
        f"a.jsonl, line {line}, column 'a'" for line in (2, 5)
    ]


def test_one_list_of_objects(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("\ufeff" + json.dumps(ROWS, indent=2), encoding="utf-8")
    source = load_jsonl(path)
    assert [source[i] for i in range(len(source))] == ROWS
    assert source.where(1, "text") == "a.json, item 2, column 'text'"
    again = pickle.loads(pickle.dumps(source))
    assert repr(again) == repr(source)
    assert again[2] == ROWS[2]
    source[0]["text"] = "changed"
    assert source[0] == ROWS[0]
    lines = load_jsonl(write(tmp_path / "b.json", ROWS))  # the name says little
    assert [lines[i] for i in range(len(lines))] == ROWS


BAD = [
    '{"a": 1',
    "[1]",
    "{}",
    '{"b": 1}',
    '{"a": 1, "b": 2}',
    '{"a": "1"}',
    '{"a": 1, "a": 2}',
]


def test_rows_that_are_no_rows_can_be_left_out(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = ['{"a": 5}', *BAD, '{"a": 6}', "", '{"a": null}']
    path.write_text("\n".join(lines))
    source = load_jsonl(path, on_error="skip")
    assert list(source.column("a")) == [5, 6, None]
    assert source.where(1, "a") == "a.jsonl, line 9, column 'a'"
    assert source.num_skipped == len(source.skipped) == len(BAD)
    for number, message in enumerate(source.skipped, start=2):
        assert f"{path}, line {number}" in message
    path = tmp_path / "a.json"
    path.write_text('[{"a": 5}, 5, {"b": 5}, {"a": "5"}, {"a": 6}]')
    source = load_jsonl(path, on_error="skip")
    assert list(source.column("a")) == [5, 6]
    assert source.where(1, "a") == "a.json, item 5, column 'a'"
    assert source.num_skipped == 3


def test_repr_is_of_the_content(tmp_path):
    one = repr(load_jsonl(write(tmp_path / "a.jsonl", ROWS)))
    assert repr(load_jsonl(write(tmp_path / "b.jsonl", ROWS))) == one
    assert repr(load_jsonl(write(tmp_path / "b.jsonl", ROWS[1:]))) != one
