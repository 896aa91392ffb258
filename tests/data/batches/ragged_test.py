# SPDX-License-Identifier: Apache-2.0
"""Rows of any length come back from disk as written; damage is never opened."""

import pickle

import numpy as np
import pytest

from jft.data.batches.ragged import RaggedWriter, open_rows
from jft.types import InputError


def write(folder, *chunks):
    folder.mkdir()
    with RaggedWriter(folder) as writer:
        for rows in chunks:
            writer.append(rows)
        writer.finish()
    return open_rows(folder)


def make_rows(num, seed=0):
    generator = np.random.default_rng(seed)
    lengths = generator.integers(0, 5, num)
    return [
        {
            "ids": generator.integers(-(2**31), 2**31, n, np.int64),
            "spans": generator.integers(0, 9, (n, 2)),
            "kept": generator.random(n) < 0.5,
            "vector": generator.normal(size=3),
            "one": int(generator.integers(9)),
            "score": float(generator.normal()),
        }
        for n in lengths
    ]


DTYPES = {
    "ids": np.int32,
    "spans": np.int32,
    "kept": np.int32,
    "vector": np.float32,
    "one": np.int32,
    "score": np.float32,
}


def assert_row(found, row):
    assert list(found) == list(row)
    for name, value in row.items():
        expected = np.asarray(value, DTYPES[name])
        np.testing.assert_array_equal(found[name], expected)
        assert found[name].dtype == expected.dtype
        assert np.shape(found[name]) == expected.shape


def test_rows_come_back_however_they_are_cut_into_chunks(tmp_path):
    rows = make_rows(23)
    for name, cuts in [("a", [23]), ("b", [1, 22]), ("c", [10, 12, 1])]:
        stops = np.cumsum(cuts)
        chunks = [rows[stop - n : stop] for stop, n in zip(stops, cuts, strict=True)]
        opened = write(tmp_path / name, *chunks)
        assert len(opened) == 23
        for i, row in enumerate(rows):
            assert_row(opened.row(i, row), row)
        assert_row(opened.row(-1, rows[0]), rows[-1])
        lengths = [len(row["ids"]) for row in rows]
        assert len(opened.values("ids")) == sum(lengths)
        with pytest.raises(IndexError):
            opened.row(23, ["ids"])
    contents = [
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()}
        for name in "abc"
    ]
    assert contents[0] == contents[1] == contents[2]


def test_only_the_fields_asked_for_are_read(tmp_path):
    opened = write(tmp_path / "a", make_rows(3))
    assert set(opened.row(1, ["one", "ids"])) == {"one", "ids"}
    assert opened.names == tuple(DTYPES)


def test_rows_without_any_value_can_be_kept(tmp_path):
    opened = write(tmp_path / "a", [{"ids": np.zeros(0, np.int32)}] * 2)
    assert len(opened) == 2
    assert opened.row(1, ["ids"])["ids"].shape == (0,)


def test_what_is_read_cannot_be_written_into(tmp_path):
    opened = write(tmp_path / "a", [{"ids": np.arange(4)}])
    with pytest.raises(ValueError, match="read-only"):
        opened.row(0, ["ids"])["ids"][0] = 1


def test_a_pickle_is_the_path(tmp_path):
    rows = make_rows(5000)
    opened = write(tmp_path / "a", rows)
    pickled = pickle.dumps(opened)
    assert len(pickled) < 500
    assert_row(pickle.loads(pickled).row(4999, rows[0]), rows[4999])


@pytest.mark.parametrize("change", ["flip", "cut", "grow", "remove"])
@pytest.mark.parametrize("name", ["ids.values", "ids.offsets", "one.values"])
def test_a_damaged_folder_is_not_opened(tmp_path, name, change):
    assert write(tmp_path / "a", make_rows(50)) is not None
    path = tmp_path / "a" / name
    content = bytearray(path.read_bytes())
    if change == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif change == "remove":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if change == "cut" else content + b"\0")
    assert open_rows(tmp_path / "a") is None


@pytest.mark.parametrize("index", ["", "[]", "{}", '{"rows": 1, "columns": 3}'])
def test_a_folder_without_a_whole_index_is_not_opened(tmp_path, index):
    write(tmp_path / "a", make_rows(5))
    (tmp_path / "a" / "index.json").write_text(index)
    assert open_rows(tmp_path / "a") is None
    assert open_rows(tmp_path / "absent") is None
    (tmp_path / "half").mkdir()
    with RaggedWriter(tmp_path / "half") as writer:
        writer.append(make_rows(5))
    assert open_rows(tmp_path / "half") is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"a": 1}, {"b": 1}], r"fields \['b'\], others have \['a'\]"),
        ([{"a": 1}, {"a": 1, "b": 1}], r"fields \['a', 'b'\]"),
        ([{"a": [1]}, {"a": 1}], "'a' has rows of the shapes"),
        ([{"a": [[1]]}, {"a": [[1, 2]]}], "'a' has rows of the shapes"),
        ([{"a": 2**31}], "'a' has values from 2147483648"),
        ([{"a": -(2**31) - 1}], "fit int32"),
        ([{"a": "word"}], "'a' is <U4; expected numbers"),
    ],
)
def test_bad_rows_are_refused(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        write(tmp_path / "a", rows)


def test_a_field_keeps_its_kind_of_number_over_chunks(tmp_path):
    with pytest.raises(InputError, match="'a' is float32 in some rows and int32"):
        write(tmp_path / "a", [{"a": 1}], [{"a": 0.5}])
