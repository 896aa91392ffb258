# SPDX-License-Identifier: Apache-2.0
"""Rows of Parquet are plain values, converted once, in memory that does not grow."""

import io
import os
import pickle
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from jft.data import Source
from jft.data.sources.parquet import MOST_ROWS, ParquetSource
from jft.types import InputError

pa = pytest.importorskip("pyarrow", reason="needs jft[parquet]")
pq = pytest.importorskip("pyarrow.parquet", reason="needs jft[parquet]")
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "parquet"


def write(file, columns, **options):
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    pq.write_table(table, file, **options)
    return file


def films(count=10, start=0):
    numbers = range(start, start + count)
    return {"text": [f"film {i}" for i in numbers], "label": [i % 2 for i in numbers]}


def png(size=(3, 2), mode="RGB"):
    from PIL import Image

    stream = io.BytesIO()
    Image.new(mode, size).save(stream, "PNG")
    return stream.getvalue()


def nested():
    """Every kind of column, with what their rows are in Python."""
    words = pa.dictionary(pa.int32(), pa.string())
    span = pa.struct([("tag", words), ("start", pa.int32())])
    kinds = {
        "text": (pa.string(), ["a", None, "ü"]),
        "label": (words, ["x", "y", None]),
        "score": (pa.float32(), [0.5, None, 2.0]),
        "flag": (pa.bool_(), [True, False, None]),
        "tags": (pa.list_(words), [["O", "B"], [], None]),
        "spans": (pa.large_list(span), [[{"tag": "B", "start": 3}], None, []]),
        "answers": (
            pa.struct([("text", pa.list_(pa.string())), ("start", pa.int64())]),
            [{"text": ["a"], "start": 0}, None, {"text": [], "start": None}],
        ),
        "pair": (pa.list_(pa.int8(), 2), [[1, 2], [3, 4], None]),
        "json": (pa.json_(), ['{"a": 1}', "[]", None]),
    }
    table = pa.table({name: pa.array(v, kind) for name, (kind, v) in kinds.items()})
    return table, {name: values for name, (_, values) in kinds.items()}


def test_rows_are_plain_python(tmp_path):
    table, expected = nested()
    source = ParquetSource(write(tmp_path / "a.parquet", table))
    assert isinstance(source, Source)
    assert source.columns == tuple(expected)
    rows = [{name: values[i] for name, values in expected.items()} for i in range(3)]
    assert [source[i] for i in range(3)] == rows
    assert list(source) == rows  # ends with IndexError
    assert source[-1] == rows[2]
    for name, values in expected.items():
        assert list(source.column(name)) == values
        assert source.column(name)[1] == values[1]
        assert source.column(name)[::2] == values[::2]
    assert source.where(2, "label") == "a.parquet, row 2, column 'label'"


def test_files_follow_one_another_and_keep_their_places(tmp_path):
    (tmp_path / "data").mkdir()
    sizes = {"b.parquet": 3, "a.parquet": 5, "c.parquet": 2}
    start = 0
    for name in sorted(sizes):
        write(tmp_path / "data" / name, films(sizes[name], start))
        start += sizes[name]
    (tmp_path / "data" / ".a.parquet").write_text("hidden")
    (tmp_path / "data" / "README.md").write_text("no data")
    whole = ParquetSource(tmp_path / "data")
    assert list(whole.column("text")) == films()["text"]
    assert [whole.where(i, "x")[:16] for i in (0, 4, 5, 7, 8)] == [
        "a.parquet, row 0", "a.parquet, row 4", "b.parquet, row 0",
        "b.parquet, row 2", "c.parquet, row 0",
    ]  # fmt: skip
    some = ParquetSource(str(tmp_path / "data" / "[bc].parquet"))
    assert list(some.column("text")) == films(5, 5)["text"]
    files = [tmp_path / "data" / name for name in ("c.parquet", "a.parquet")]
    listed = ParquetSource(files)
    assert list(listed.column("text")) == films(2, 8)["text"] + films(5)["text"]
    assert (
        repr(ParquetSource(files)) == repr(listed) != repr(ParquetSource(files[::-1]))
    )


def test_columns_of_one_name_and_like_types_fit(tmp_path):
    one = pa.table(
        {"id": pa.array([1], pa.int32()), "text": pa.array([None], pa.null())}
    )
    other = pa.table({"text": ["a"], "id": [2**40]})
    files = [write(tmp_path / "1", one), write(tmp_path / "2", other)]
    rows = list(ParquetSource(files))
    assert rows == [{"id": 1, "text": None}, {"id": 2**40, "text": "a"}]


def test_dictionaries_may_change_from_group_to_group(tmp_path):
    values = [f"class {i % 7}" for i in range(50)] + ["other", None]
    column = pa.array(values).dictionary_encode()
    file = write(tmp_path / "a.parquet", {"label": column}, row_group_size=5)
    more = write(tmp_path / "b.parquet", {"label": pa.array(["new"])})
    assert list(ParquetSource([file, more]).column("label")) == [*values, "new"]


def test_values_do_not_depend_on_what_extensions_are_known(tmp_path):
    column = pa.array([b"0123456789abcdef"]).cast(pa.binary(16)).cast(pa.uuid())
    file = write(tmp_path / "a.parquet", {"key": column})
    assert ParquetSource(file)[0] == {"key": b"0123456789abcdef"}


def test_only_the_chosen_columns_are_written(tmp_path, cache):
    rng = np.random.default_rng(0)
    columns = {**films(), "blob": [rng.bytes(10_000) for _ in range(10)]}
    file = write(tmp_path / "a.parquet", columns)
    source = ParquetSource(file, columns=["label", "text"])
    assert source.columns == ("label", "text")
    assert source[3] == {"label": 1, "text": "film 3"}
    assert sum(file.stat().st_size for file in cache.iterdir()) < 10_000
    assert ParquetSource(file)[3]["blob"] == columns["blob"][3]
    assert repr(source) != repr(ParquetSource(file))


def test_rows_are_found_in_every_batch(tmp_path):
    count = 2 * MOST_ROWS + 5
    for group in (None, 1000):
        file = write(tmp_path / f"{group}", films(count), row_group_size=group)
        source = ParquetSource(file)
        for index in (0, MOST_ROWS - 1, MOST_ROWS, 2 * MOST_ROWS, count - 1):
            assert source[index] == {"text": f"film {index}", "label": index % 2}
        assert list(source.column("text")) == films(count)["text"]


def test_images_are_decoded_in_rows_and_named_in_columns(tmp_path, monkeypatch):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    values = [
        {"bytes": png(), "path": "0.png"},
        {"bytes": png(mode="L"), "path": None},
        None,
        {"bytes": b"no image", "path": "3.png"},
        {"bytes": None, "path": "4.png"},
    ]
    file = write(tmp_path / "a.parquet", {"image": pa.array(values, kind)})
    source = ParquetSource(file)
    assert source[0]["image"].shape == (2, 3, 3)
    assert source[0]["image"].dtype == np.uint8
    assert source[1]["image"].shape == (2, 3, 1)
    assert source[2]["image"] is None
    with pytest.raises(
        InputError, match=r"the image a\.parquet, row 3: cannot identify"
    ):
        source[3]
    with pytest.raises(InputError, match=r"a\.parquet, row 4 is a path, '4\.png'"):
        source[4]
    monkeypatch.setattr(
        "jft.data.sources.parquet.read_image", None
    )  # an error if called
    names = ["0.png", "a.parquet, row 1", None, "3.png", "4.png"]
    assert list(source.column("image")) == names


def test_a_file_is_converted_once_whatever_its_name(tmp_path, cache):
    def converted():
        return {file.name: file.stat().st_mtime_ns for file in cache.glob("*.arrow")}

    file = write(tmp_path / "a.parquet", films())
    same, before = repr(ParquetSource(file)), converted()
    assert len(before) == 1
    assert repr(ParquetSource(file)) == same
    moved = file.rename(tmp_path / "b.parquet")
    assert repr(ParquetSource(moved)) == same
    assert converted() == before
    assert str(tmp_path) not in same
    assert "b.parquet" not in same
    assert not list(cache.glob("*.partial"))


def test_a_file_written_anew_is_read_anew(tmp_path):
    file = write(tmp_path / "a.parquet", films())
    before = ParquetSource(file)
    write(file, films(start=1))
    after = ParquetSource(file)
    assert repr(after) != repr(before)
    assert after[0]["text"] == "film 1"
    assert before[0]["text"] == "film 0"  # what it was opened with


def test_a_copy_through_pickle_is_the_same_source(tmp_path):
    source = ParquetSource(write(tmp_path / "a.parquet", nested()[0]))
    pickled = pickle.dumps(source)
    copy = pickle.loads(pickled)
    assert repr(copy) == repr(source)
    assert list(copy) == list(source)
    assert copy.where(1, "text") == source.where(1, "text")
    big = ParquetSource(write(tmp_path / "b.parquet", films(50_000)))
    assert len(pickle.dumps(big)) < len(pickled) + 100  # where the rows are, not they
    source._mapped.unlink()
    with pytest.raises(InputError, match=r"made from a\.parquet, cannot be read.*made"):
        pickle.loads(pickled)


def test_the_number_of_readers_does_not_matter(tmp_path):
    source = ParquetSource(write(tmp_path / "a.parquet", films(3 * MOST_ROWS)))
    order = np.random.default_rng(0).integers(0, len(source), 2000).tolist()
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(source.__getitem__, order))
    assert together == [{"text": f"film {i}", "label": i % 2} for i in order]


MEMORY = """
import sys
import pyarrow.parquet
from jft.data.sources.parquet import ParquetSource

def anonymous():
    with open("/proc/self/status") as lines:
        return next(int(x.split()[1]) >> 10 for x in lines if x.startswith("RssAnon"))

small = ParquetSource(sys.argv[2])
list(small.column("text")), small[0]  # what the libraries allocate themselves
before = anonymous()
source = ParquetSource(sys.argv[1])
converted = anonymous()
count = sum(len(text) for text in source.column("text"))
rows = [len(source[i]["text"]) for i in range(0, len(source), 501)]
print(converted - before, anonymous() - before, count >> 20)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux")
def test_memory_does_not_grow_with_the_file(tmp_path):
    rng = np.random.default_rng(0)
    schema = pa.schema([("text", pa.string())])
    with pq.ParquetWriter(tmp_path / "large", schema, compression="NONE") as writer:
        for _ in range(2):  # groups of 48 MiB
            texts = [rng.bytes(4096).hex() for _ in range(6144)]
            writer.write_table(pa.table({"text": texts}), row_group_size=6144)
    write(tmp_path / "small", {"text": texts[:2048]})
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, tmp_path / "large", tmp_path / "small"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    converting, reading, read = map(int, done.stdout.split())
    assert read == 96  # MiB
    assert converting < 32
    assert reading < 32


def test_damage_names_the_file(tmp_path, cache):
    options = {"compression": "NONE", "write_page_checksum": True}
    file = write(tmp_path / "a.parquet", films(5000), **options)
    whole = file.read_bytes()
    damages = {
        "text": b"text\n" * 10,
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "one letter": whole.replace(b"film 77", b"film 78", 1),
    }
    for name, content in damages.items():
        file.write_bytes(content)
        message = rf"{file} cannot be read as Parquet: .*Expected a whole Parquet file"
        with pytest.raises(InputError, match=message):
            ParquetSource(file)
        assert not list(cache.glob("*.arrow")), name
        assert not list(cache.glob("*.partial")), name


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("none.parquet", {}, r"there is no file .*none\.parquet\. Check the path"),
        ("folder", {}, r"no file .*folder/\*\.parquet\. Check"),
        ("folder/t*.parquet", {}, r"no file .*folder/t\*\.parquet\. Check"),
        (
            "a.parquet",
            {"columns": ["text", "lable"]},
            r"a\.parquet has the columns \['text', 'label'\]; expected \['lable'\]",
        ),
        ("twice.parquet", {}, r"columns \['a', 'a'\]; expected \['a', 'a'\] once"),
        ("no_rows.parquet", {}, r"no_rows\.parquet has no row"),
    ],
)
def test_what_is_not_there_is_refused(path, options, message, tmp_path):
    (tmp_path / "folder").mkdir()
    write(tmp_path / "a.parquet", films())
    write(tmp_path / "twice.parquet", pa.table([[1], [2]], names=["a", "a"]))
    write(tmp_path / "no_rows.parquet", pa.table({"a": pa.array([], pa.int64())}))
    with pytest.raises(InputError, match=message):
        ParquetSource(tmp_path / path, **options)


def test_files_that_do_not_fit_are_named(tmp_path):
    one = write(tmp_path / "1.parquet", films())
    other = write(tmp_path / "2.parquet", {**films(), "label": ["good"] * 10})
    message = rf"{re.escape(str(other))} does not fit .*1\.parquet: .*label.*one type"
    with pytest.raises(InputError, match=message):
        ParquetSource([one, other])
    write(other, {"text": ["a"]})
    with pytest.raises(
        InputError, match=r"2\.parquet has the columns \['text'\]; .*1\.p"
    ):
        ParquetSource([one, other])
    assert len(ParquetSource([one, other], columns=["text"])) == 11
    with pytest.raises(InputError, match="empty list"):
        ParquetSource([])


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    file = write(tmp_path / "a.parquet", films())
    monkeypatch.setenv("JFT_CACHE", str(file))
    with pytest.raises(
        InputError, match=r"a\.parquet cannot be written as Arrow.*JFT_C"
    ):
        ParquetSource(file)


def test_the_absent_package_is_named(tmp_path, monkeypatch):
    file = write(tmp_path / "a.parquet", films())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'jft\[parquet\]'"):
        ParquetSource(file)
