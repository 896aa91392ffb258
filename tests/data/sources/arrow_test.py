# SPDX-License-Identifier: Apache-2.0
"""A table's digest follows its values and types, not how Arrow lays them out."""

import pytest

from jft.data.sources.arrow import digest_tables, is_file, plain_type

pa = pytest.importorskip("pyarrow", reason="needs jft[parquet]")


def make_table(count=3000):
    rows = range(count)
    return pa.table(
        {
            "text": [f"film {i}" if i % 7 else None for i in rows],
            "label": pa.array([i % 2 if i % 5 else None for i in rows], pa.int64()),
            "flag": [i % 3 == 0 if i % 11 else None for i in rows],
            "tags": [["O", "B"][: i % 3] if i % 13 else None for i in rows],
            "answers": [
                {"text": ["a"] * (i % 2), "start": i} if i % 17 else None for i in rows
            ],
        }
    )


def layouts(table):
    """The same values as other slices, chunks, offsets and bitmaps."""
    count = len(table)
    yield "of its own", pa.table({k: table[k].to_pylist() for k in table.column_names})
    padded = pa.concat_tables([table.slice(5, 3), table, table.slice(0, 9)])
    yield "cut out", padded.slice(3, count)
    yield "cut out of one chunk", padded.combine_chunks().slice(3, count)
    parts = [table.slice(i, 700) for i in range(0, count, 700)]
    yield "in chunks", pa.concat_tables(parts)
    back = pa.array(range(count - 1, -1, -1))
    yield "taken", table.take(back).take(back)
    yield "with metadata", table.replace_schema_metadata({"a": "b"})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table, max_chunksize=1000)
    yield "through a stream", pa.ipc.open_stream(sink.getvalue()).read_all()


def test_digests_do_not_depend_on_the_layout():
    table = make_table()
    windows = [(0, 3000), (1024, 1024), (7, 1), (2990, 10)]
    for name, other in layouts(table):
        assert other.equals(table), name
        for start, length in windows:
            parts = (t.slice(start, length) for t in (table, other))
            one, two = (digest_tables([part]) for part in parts)
            assert one == two, (name, start)


def test_digests_tell_values_names_types_and_facts_apart():
    def digest(columns, facts=()):
        return digest_tables([pa.table(columns)], facts)

    different = [
        digest({"a": ["x", "y"]}),
        digest({"a": ["x", "z"]}),
        digest({"a": ["y", "x"]}),
        digest({"a": ["xy", ""]}),
        digest({"a": ["x", None]}),
        digest({"a": ["x", ""]}),
        digest({"b": ["x", "y"]}),
        digest({"a": [["x"], ["y"]]}),
        digest({"a": [["x", "y"], []]}),
        digest({"a": pa.array([1, 2], pa.int8())}),
        digest({"a": pa.array([1, 2], pa.int64())}),
        digest({"a": ["x", "y"]}, ["fact"]),
        digest({"a": ["x", "y"]}, ["fa", "ct"]),
    ]
    assert len(set(different)) == len(different)


def test_files_are_told_apart_by_path_and_size():
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

    def digest(data, path):
        values = [{"bytes": data, "path": path}, None]
        return digest_tables([pa.table({"image": pa.array(values, kind)})])

    assert digest(b"ab", "x") == digest(b"ab", "x")
    assert len({digest(b"ab", "x"), digest(b"abc", "x"), digest(b"ab", "y")}) == 3


def test_what_a_file_is():
    bytes_and_path = [("path", pa.string()), ("bytes", pa.large_binary())]
    assert is_file(pa.struct(bytes_and_path))
    assert not is_file(pa.struct([*bytes_and_path, ("x", pa.int8())]))
    assert not is_file(pa.struct([("bytes", pa.string()), ("path", pa.string())]))
    assert not is_file(pa.list_(pa.struct(bytes_and_path)))
    assert not is_file(pa.binary())


def test_plain_types():
    words = pa.dictionary(pa.int8(), pa.string())
    for kind, expected in (
        (words, pa.string()),
        (pa.json_(), pa.string()),
        (pa.list_(words), pa.list_(pa.string())),
        (pa.large_list(pa.uuid()), pa.large_list(pa.binary(16))),
        (
            pa.struct([("a", pa.list_(words))]),
            pa.struct([("a", pa.list_(pa.string()))]),
        ),
        (pa.list_(pa.int8(), 2), pa.list_(pa.int8(), 2)),
    ):
        assert plain_type(kind) == expected
