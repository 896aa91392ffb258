# SPDX-License-Identifier: Apache-2.0
"""What a user's files may have wrong, and the words that say so."""

import gzip
import json

import pytest

from jft.data import load_source, select_columns
from jft.types import InputError

GOOD = '{"text": "a", "targets": 1}\n'
FOLDER = object()  # in place of content
QA = {"id": "q1", "question": "Who?", "answers": []}


def squad(*questions, **paragraph):
    paragraph = {"context": "Anna ran.", "qas": questions, **paragraph}
    return json.dumps({"data": [{"title": "T", "paragraphs": [paragraph]}]})


# name -> (source, content, options, what the message says)
FAULTS = {
    # any file of text
    "absent": ("csv", None, {}, r"/data cannot be read: No such file.*Check the path"),
    "folder": ("tsv", FOLDER, {}, r"/data is a folder; expected a file"),
    "empty": ("jsonl", "", {}, "/data is empty; expected one example a row"),
    "blank": ("tsv", "\n\r\n\n", {}, "/data has no row; expected one example a row"),
    "Latin-1": ("tsv", b"a\t1\nb\xe9c\t0\n", {}, r"line 2 is no UTF-8.*0xe9.*Latin-1"),
    "cut in a character": (
        "lines", "a\né".encode()[:-1], {},
        "line 2 is no UTF-8.*0xc3"
    ),
    "UTF-16": (
        "csv", "text,label\n".encode("utf-16"), {},
        "line 1 .*0xff 0xfe.*UTF-16"
    ),
    "UTF-16 BE": ("conll", b"\xfe\xff\0a", {}, r"line 1 \(bytes 0xfe 0xff\).*UTF-16"),
    "UTF-16 without mark": (
        "csv", "a,b\n".encode("utf-16-le"), {},
        "line 1 holds a NUL"
    ),
    "NUL": ("jsonl", GOOD + "\0\n", {}, r"line 2 holds a NUL byte \(0x00\).*UTF-16"),
    "gzip by no name": ("tsv", gzip.compress(b"a\t1"), {}, r"gzip.*name end in \.gz"),
    # tables
    "header alone": ("csv", "text,label\n", {}, "no row below its header"),
    "wide": ("tsv", "a\t1\nb\t0\t2\n", {}, r"line 2 has 3 columns.*first row has 2"),
    "narrow": ("tsv", "a\t1\n\nb\n", {}, r"line 3 has 1 columns.*has 2.*'\\t'"),
    "ragged after quotes": ("csv", 'a,b\n"c\nd",1\ne\n', {}, "line 4 has 1 columns"),
    "bad quotes": ("csv", 'a,b\n"c" d,1\n', {}, "line 2 is badly quoted"),
    "twice": ("csv", "a,b,a\n1,2,3\n", {}, r"names the columns \['a'\] more than once"),
    "all skipped": (
        "csv", "a,b\n1\n2\n", {"on_error": "skip"},
        "no row below its header.*Of 2 that were skipped: .*line 2 has 1 columns",
    ),
    # JSON
    "no JSON": ("jsonl", GOOD + '{"text": }\n', {}, "line 2 is no JSON.*character 10"),
    "no object": ("jsonl", GOOD + "[1, 2]\n", {}, r"line 2 holds a list.*an object"),
    "list by no name": ("jsonl", f"[{GOOD}]", {}, r"line 1 is no JSON"),
    "no keys": ("jsonl", "{}\n", {}, "line 1 holds an object without keys"),
    "missing key": (
        "jsonl", GOOD + '\n{"text": "b"}\n', {},
        r"line 3 lacks the columns \['targets'\]; expected those of .*line 1",
    ),
    "other keys": (
        "jsonl", GOOD + '{"text": "b", "target": 1}\n', {},
        r"line 2 lacks the columns \['targets'\] and also has \['target'\]",
    ),
    "key twice": (
        "jsonl", '{"a": 1, "a": 2}\n', {},
        r"line 1 .*\['a'\] more than once"
    ),
    "number and text": (
        "jsonl", GOOD + '{"text": "b", "targets": "1"}\n', {},
        "line 2, column 'targets' holds a text; since .*line 1 it holds a number",
    ),
    "text and list": (
        "jsonl", GOOD + '{"text": ["b"], "targets": 1}\n', {},
        "line 2, column 'text' holds a list; since .*line 1 it holds a text",
    ),
    "number and truth": (
        "jsonl", GOOD + '{"text": "b", "targets": true}\n', {},
        "line 2, column 'targets' holds true or false; since .*a number",
    ),
    "mixed after null": (
        "jsonl", '{"a": null}\n{"a": 1}\n{"a": []}\n', {},
        "line 3, column 'a' holds a list; since .*line 2 it holds a number",
    ),
    "half a character": (
        "jsonl", '{"a": "b \\ud83d"}\n', {}, "line 1, column 'a' holds half a character"
    ),
    "too deep": (
        "jsonl", "[" * 100_000, {},
        "line 1 is no JSON: it is nested too deep"
    ),
    # CoNLL
    "no tag": ("conll", "a O\n\nb\n", {}, "line 3 has 1 columns; the first line has 2"),
    "tag is the word": ("conll", "a\nb\n", {}, r"line 1 has 1 columns; .*tag_column"),
    "no such column": (
        "conll", "a O\n", {"tag_column": 2},
        r"line 1 .*columns \[0, 2\]"
    ),
    "blank tag": (
        "conll", "a\tO\nb\t\n", {"delimiter": "\t"}, "line 2 has a blank word or tag"
    ),
    "no prefix": (
        "conll", "en:a O\nb O\n", {"prefix": "en:"}, "line 2 has the word 'b'.*'en:'"
    ),
    "prefix alone": (
        "conll", "en: O\n", {"prefix": "en:"},
        "line 1 has the word 'en:'"
    ),
    "no sentence": ("conll", "-DOCSTART- O\n\n", {}, "has no row"),
    "no delimiter": ("conll", "a O\n", {"delimiter": ""}, "the delimiter of a CoNLL"),
    # SQuAD
    "no SQuAD": ("squad", "{", {}, "/data, line 1 is no JSON.*SQuAD"),
    "no data": ("squad", '{"version": "1.1"}', {}, "no list of objects under .*'data'"),
    "no context": ("squad", squad(QA, context=None), {}, r"paragraph 1 has no text as"),
    "no questions": ("squad", squad(), {}, "has no row"),
    "no question": (
        "squad", squad(QA, {"id": "q2", "answers": []}), {},
        r"question 'q2' \(title 'T'\) has no text under the key 'question'",
    ),
    "no id": ("squad", squad({"question": "Who?"}), {}, "question 1 .*key 'id'"),
    "id twice": ("squad", squad(QA, QA), {}, "'q1' .*has the id of another question"),
    "answers missing": (
        "squad", squad(QA, {"id": "q2", "question": "Who?"}), {},
        "question 'q2' .*no list of answers",
    ),
    "answer without start": (
        "squad", squad({**QA, "answers": [{"text": "Anna"}]}), {},
        "question 'q1' .*whole number 'answer_start'",
    ),
    "impossible with answer": (
        "squad",
        squad({**QA, "is_impossible": True,
               "answers": [{"text": "Anna", "answer_start": 0}]}),
        {}, "question 'q1' .*is_impossible, yet has answers",
    ),
    # lines
    "no files": ("lines", "a\n", {"files": {}}, "files is empty"),
    "blank lines": ("lines", "\n \n", {}, "has no text; expected one a line"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_the_message_names_file_and_place(name, tmp_path):
    source, content, options, message = FAULTS[name]
    path = tmp_path / "data"
    if content is FOLDER:
        path.mkdir()
    elif content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as caught:
        load_source(source, str(path), **options)
    if name not in ("no delimiter", "no files"):
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("source", "name", "content", "asked", "message"),
    [
        ("csv", "a.csv", "text,label\na,1\n", "lable", r"\['text', 'label'\]\.$"),
        ("csv", "a.csv", "text;label\na;1\n", "label", "set delimiter to ';'"),
        ("tsv", "a.csv", "text,label\n", 1, "set delimiter to ','"),
        ("csv", "a.tsv", "a\t1\nb\t0\n", "1", r"set delimiter to '\\t'"),
        ("tsv", "a.tsv", "text\tlabel\na\t1\n", "label", "set header to True"),
        ("tsv", "a.tsv", "a\t1\n", 2, r"\['0', '1'\].*read without a header"),
        ("jsonl", "a.jsonl", GOOD, "label", r"\['text', 'targets'\]\.$"),
    ],
)
def test_absent_columns(source, name, content, asked, message, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        select_columns(load_source(source, str(tmp_path / name)), {"targets": asked})


@pytest.mark.parametrize(
    "content", [b"so good\n", gzip.compress(b"so good\n", mtime=0)[:-9]]
)
def test_damaged_gzip(content, tmp_path, monkeypatch):
    monkeypatch.setenv("JFT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.txt.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.txt\.gz is no whole gzip file"):
        load_source("lines", str(tmp_path / "a.txt.gz"))


@pytest.mark.parametrize("name", ["csv", "tsv", "jsonl", "conll", "squad", "folder"])
def test_on_error_is_error_or_skip(name, tmp_path):
    with pytest.raises(InputError, match=r"on_error is .error. or .skip.; got 'True'"):
        load_source(name, str(tmp_path), on_error="True")
