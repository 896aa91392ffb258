# SPDX-License-Identifier: Apache-2.0
import pytest

from jft.data import read_table
from jft.types import InputError


def write(folder, content, name="a.tsv"):
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def read_tsv(file, **changes):
    return read_table(
        file, **{"delimiter": "\t", "quoted": False, "header": False, **changes}
    )


def read_csv(file, **changes):
    return read_table(
        file, **{"delimiter": ",", "quoted": True, "header": True, **changes}
    )


def test_plain_rows_keep_quotes_and_know_their_lines(tmp_path):
    # U+2028 and U+0085 are no line ends here; Windows' line ends are
    text = 'he said "no\t0\r\n\n\u2028a\u0085b\t1\n\n'
    table = read_tsv(write(tmp_path, text))
    assert table.rows == (('he said "no', "0"), ("\u2028a\u0085b", "1"))
    assert table.lines == (1, 3)
    assert table.names is None
    assert table.column(0) == ('he said "no', "\u2028a\u0085b")
    assert table.where(1, 0).endswith("a.tsv, line 3, column 0")


def test_a_row_may_be_longer_than_csv_allows(tmp_path):
    table = read_tsv(write(tmp_path, "x" * 200_000 + "\t1"))
    assert len(table.column(0)[0]) == 200_000


def test_quoted_rows(tmp_path):
    text = '\ufefftext,label\n"a, ""b""\nc",1\nd,0\n'
    table = read_csv(write(tmp_path, text))
    assert table.names == ("text", "label")  # without the byte-order mark
    assert table.column("text") == ('a, "b"\nc', "d")
    assert table.column(1) == table.column("label") == ("1", "0")
    assert table.lines == (3, 4)


FAULTS = {
    "absent": (None, {}, r"none\.tsv cannot be read: No such file.*expected a file"),
    "folder": ("folder", {}, r"is a folder; expected a file"),
    "too many columns": ("a\t1\nb\t0\t2\n", {}, r"line 2 has 3 columns.*has 2"),
    "too few columns": ("a\t1\n\nb\n", {}, r"line 3 has 1 columns.*has 2.*'\\t'"),
    "header too short": ("text\na\t1\n", {"header": True}, r"line 2 has 2 columns"),
    "empty": ("\n \n"[:1], {}, "has no row; expected one example a row"),
    "header alone": ("text\tlabel\n", {"header": True}, "no row below its header"),
    "not UTF-8": (b"a\t1\nb\xe9c\t0\n", {}, r"line 2 is no UTF-8.*0xe9.*Save"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_name_file_and_line(name, tmp_path):
    content, changes, message = FAULTS[name]
    file = tmp_path / "none.tsv"
    if content == "folder":
        file.mkdir()
    elif content is not None:
        write(tmp_path, content, file.name)
    with pytest.raises(InputError, match=message) as caught:
        read_tsv(file, **changes)
    assert "none.tsv" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('text,label\n"a" b,1\n', "line 2 is badly quoted"),
        ('text,label\na,0\n"b,1\n', "line 3 is badly quoted.*say"),
    ],
)
def test_bad_quotes_name_the_line(text, message, tmp_path):
    with pytest.raises(InputError, match=message):
        read_csv(write(tmp_path, text))


@pytest.mark.parametrize(
    ("header", "column", "message"),
    [
        (False, 2, r"2 columns, 0 to 1; there is no column 2"),
        (False, -1, "no column -1"),
        (False, "text", "'text' is asked for by name.*set header to True"),
        (True, "txt", r"has the columns \['text', 'text'\]; expected 'txt' once"),
        (True, "text", r"expected 'text' once among them"),
    ],
)
def test_absent_columns_are_refused(header, column, message, tmp_path):
    table = read_tsv(write(tmp_path, "text\ttext\na\t1\n"), header=header)
    with pytest.raises(InputError, match=message):
        table.column(column)
