# SPDX-License-Identifier: Apache-2.0
"""Rows of CSV and TSV are those that Python reads, and each knows its line."""

import csv
import io
import pickle
import sys
from functools import partial

import numpy as np
import pytest

from jft.data import Source
from jft.data.sources import blocks
from jft.data.sources.delimited import load_delimited
from jft.types import InputError


def write(folder, content, name="a.tsv"):
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def load_tsv(file, **changes):
    return load_delimited(
        file, **{"delimiter": "\t", "quoted": False, "header": False, **changes}
    )


def load_csv(file, **changes):
    return load_delimited(
        file, **{"delimiter": ",", "quoted": True, "header": True, **changes}
    )


def rows_of(source):
    return [tuple(source[i].values()) for i in range(len(source))]


def test_plain_rows_keep_quotes_and_know_their_lines(tmp_path):
    # U+2028 and U+0085 are no line ends here; Windows' line ends are
    text = 'he said "no\t0\r\n\r\n\u2028a\u0085b\t1\n\n'
    source = load_tsv(write(tmp_path, text))
    assert isinstance(source, Source)
    assert source.columns == ("0", "1")
    assert rows_of(source) == [('he said "no', "0"), ("\u2028a\u0085b", "1")]
    assert list(source.column("0")) == ['he said "no', "\u2028a\u0085b"]
    assert source.where(1, "0") == "a.tsv, line 3, column '0'"
    assert source[-1] == source[1]
    with pytest.raises(IndexError):
        source[2]


def test_a_row_may_be_longer_than_csv_allows(tmp_path):
    long = "x, " * 70_000
    assert load_tsv(write(tmp_path, f"{long}\t1"))[0]["0"] == long
    assert load_csv(write(tmp_path, f'a,b\n"{long}",1'))[0]["a"] == long


def test_quoted_rows(tmp_path):
    text = '\ufefftext,label\n"a, ""b""\nc",1\n\nd,0\n"",""'
    source = load_csv(write(tmp_path, text))
    assert source.columns == ("text", "label")  # without the byte-order mark
    assert rows_of(source) == [('a, "b"\nc', "1"), ("d", "0"), ("", "")]
    lines = [source.where(i, "label") for i in range(3)]
    assert lines == [f"a.tsv, line {n}, column 'label'" for n in (2, 5, 6)]


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_rows_are_those_of_python(chunk, line_end, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "CHUNK", chunk)
    generator = np.random.default_rng(0)
    signs = [*'ab,";\té\u2028😀 ', line_end, '""']
    expected = [
        ["".join(generator.choice(signs, generator.integers(6))) for _ in range(3)]
        for _ in range(200)
    ]
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
        stream = io.StringIO(newline="")
        csv.writer(stream, quoting=quoting, lineterminator=line_end).writerows(expected)
        source = load_csv(write(tmp_path, stream.getvalue()), header=False)
        read = list(csv.reader(io.StringIO(stream.getvalue(), newline="")))
        assert rows_of(source) == list(map(tuple, read)) == list(map(tuple, expected))
        starts = np.cumsum(
            [1, *("".join(row).count("\n") + 1 for row in expected)]
        ).tolist()
        lines = [source._records.line(i) for i in range(len(source))]
        assert lines == starts[:-1]


def test_blank_lines_and_faulty_rows_do_not_move_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "CHUNK", 16)
    generator = np.random.default_rng(1)
    lines, kept = [], []
    for number in range(1, 301):
        kind = generator.integers(3)
        lines.append([f"text {number}\t{number}", "", f"short {number}"][kind])
        if kind == 0:
            kept.append(number)
    file = write(tmp_path, "\t\n" + "\n".join(lines))
    source = load_tsv(file, on_error="skip")
    assert rows_of(source)[1:] == [(f"text {n}", f"{n}") for n in kept]
    places = [source.where(i + 1, "1") for i in range(len(kept))]
    assert places == [f"a.tsv, line {n + 1}, column '1'" for n in kept]
    short = [n for n, line in enumerate(lines, 1) if line.startswith("short")]
    assert source.num_skipped == len(short)
    assert len(source.skipped) == 100 < len(short)
    assert (
        f"line {short[0] + 1} has 1 columns; the first row has 2" in (source.skipped[0])
    )
    with pytest.raises(InputError, match=f"line {short[0] + 1} has 1 columns"):
        load_tsv(file)


def test_repr_is_of_the_content_and_not_of_the_place(tmp_path):
    text = "a,1\nb,2\n"
    source = load_csv(write(tmp_path, text), header=False)
    same = load_csv(write(tmp_path, text, "b.csv"), header=False)
    assert repr(source) == repr(same) == repr(pickle.loads(pickle.dumps(source)))
    others = [
        load_csv(write(tmp_path, text, "b.csv")),
        load_csv(write(tmp_path, text, "b.csv"), header=False, quoted=False),
        load_csv(write(tmp_path, text, "b.csv"), header=False, delimiter=";"),
        load_csv(write(tmp_path, "a,1\nb,3\n", "c.csv"), header=False),
        load_csv(
            write(tmp_path, "a,1\nb,3,\n", "c.csv"), header=False, on_error="skip"
        ),
    ]
    assert len({repr(source), *map(repr, others)}) == 6


def test_a_pickled_source_reads_its_file_again(tmp_path):
    file = write(tmp_path, "good\t1\nbad\t0\n")
    data = pickle.dumps(load_tsv(file))
    assert b"good" not in data
    assert rows_of(pickle.loads(data)) == [("good", "1"), ("bad", "0")]
    file.write_text("good\t1\n")
    with pytest.raises(InputError, match=r"has 7 bytes; it had 13"):
        pickle.loads(data)


def test_names_of_columns(tmp_path):
    # pandas writes its index without a name; spreadsheets leave delimiters behind
    source = load_csv(write(tmp_path, ",text,,\n0,good,,\n"))
    assert source.columns == ("0", "text", "2", "3")
    with pytest.raises(InputError, match=r"\['text'\] more than once.*set header"):
        load_csv(write(tmp_path, "text,text\na,b\n"))
    with pytest.raises(InputError, match=r"\['1'\] more than once"):
        load_csv(write(tmp_path, "1,\na,b\n"))


@pytest.mark.parametrize("delimiter", ["||", "", "\n", '"', "¦"])
def test_impossible_delimiters_are_refused(delimiter, tmp_path):
    with pytest.raises(InputError, match="one ASCII character"):
        load_csv(tmp_path / "a.csv", delimiter=delimiter)


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ('text,label\n"a" b,1\n', 2, "goes on after its last quote"),
        ('text,label\n"a""b,1\nc,"d",\n', 2, "goes on after its last quote"),
        ('text,label\na,0\n"b,1\n', 3, "never closed"),
        ('text,label\na,0\n5" disk,1\n', 3, "inside a value"),
        ('text,label\na,0\n5" disk,1\n6" disk,0\n', 3, "inside a value"),
        ('text,label\na, "0"\n', 2, "inside a value"),
        ('"', 1, "never closed"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_bad_quotes_name_the_line(text, line, what, chunk, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "CHUNK", chunk)
    with pytest.raises(InputError, match=f"line {line} is badly quoted: .*{what}"):
        load_csv(write(tmp_path, text), on_error="skip")


def test_a_quote_left_open_does_not_read_the_whole_file(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "CHUNK", 100)
    monkeypatch.setattr(blocks, "MAX_RECORD", 1000)
    file = write(tmp_path, 'text\n"a\n' + "b\n" * 10_000)
    with pytest.raises(InputError, match=r"line 2 begins a row of more than 1,000"):
        load_csv(file)


def test_opening_costs_no_python_for_each_row_and_reads_the_file_once(tmp_path):
    counts = {}
    for num_rows in (1_000, 100_000):
        file = write(tmp_path, 'text,label\n"so, good",1\n' * num_rows, "a.csv")
        calls = []
        before = read_bytes()
        sys.setprofile(partial(count_call, calls))
        source = load_csv(file)
        sys.setprofile(None)
        assert len(source) == 2 * num_rows - 1
        assert read_bytes() - before < 1.1 * file.stat().st_size + 100_000
        counts[num_rows] = len(calls)
    assert counts[100_000] < 10 * counts[1_000]


def count_call(calls, frame, event, argument):
    calls.append(event)


def read_bytes():
    with open("/proc/self/io") as stream:
        return int(stream.readline().removeprefix("rchar: "))
