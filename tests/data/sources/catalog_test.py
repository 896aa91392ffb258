# SPDX-License-Identifier: Apache-2.0
"""Every source keeps one contract: rows, columns, places, pickling and repr."""

import json
import pickle
import string

import numpy as np
import pytest
from PIL import Image

from jft.data import (
    SOURCES,
    Source,
    load_source,
    select_columns,
)
from jft.data.sources.catalog import load_digits_source
from jft.types import InputError

FILES = {  # one row each that says 7
    "tsv": "so good\t7\n",
    "csv": 'text,label\n"so, good",7\n',
    "jsonl": '{"text": "so good", "label": 7}\n',
    "conll": "so O\ngood 7\n",
    "lines": "no. 7\n",
    "squad": json.dumps(
        {
            "data": [
                {
                    "title": "T",
                    "paragraphs": [
                        {
                            "context": "a 7",
                            "qas": [
                                {
                                    "id": "q",
                                    "question": "Which?",
                                    "answers": [{"text": "7", "answer_start": 2}],
                                }
                            ],
                        }
                    ],
                }
            ]
        }
    ),
}
IN_MEMORY = {"digits": {}, "letters": {"num_per_class": 1, "seed": 3}}
LENGTHS = {"digits": 1797, "letters": 52, "tfds": 32}  # of others 1


# --- one source of every name, as {name: its path and options} ------------------------
def write_text(name, tmp_path, request):
    (tmp_path / name).write_text(FILES[name])
    return str(tmp_path / name), {}


def write_folder(name, tmp_path, request):
    (tmp_path / "folder" / "ant").mkdir(parents=True)
    Image.new("RGB", (4, 3), (1, 2, 3)).save(tmp_path / "folder" / "ant" / "a.png")
    return str(tmp_path / "folder"), {}


def write_parquet(name, tmp_path, request):
    pa = pytest.importorskip("pyarrow", reason="needs jft[parquet]")
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs jft[parquet]")
    parquet.write_table(pa.table({"text": ["so good"], "label": [7]}), tmp_path / "a")
    return str(tmp_path / "a"), {}


def write_hf_datasets(name, tmp_path, request):
    datasets = pytest.importorskip("datasets", reason="needs jft[hf]")
    rows = datasets.Dataset.from_dict({"text": ["bad", "good"], "label": [6, 7]})
    parts = datasets.DatasetDict({"train": rows})
    parts.save_to_disk(tmp_path / "saved", num_proc=None)
    return str(tmp_path / "saved"), {"split": "train[1:]"}


def prepare_tfds(name, tmp_path, request):
    folder = request.getfixturevalue("toy_data_dir")
    columns = ["id", "image", "label", "level", "score", "words"]
    options = {"split": "train[:80%]", "data_dir": str(folder), "columns": columns}
    return "toy_tfds", options


MAKERS = {
    **dict.fromkeys(FILES, write_text),
    **{name: lambda name, *_: (None, IN_MEMORY[name]) for name in IN_MEMORY},
    "folder": write_folder,
    "parquet": write_parquet,
    "hf_datasets": write_hf_datasets,
    "tfds": prepare_tfds,
}


def test_every_source_has_a_row_here():
    assert set(MAKERS) == set(SOURCES)


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_keeps_the_contract(name, tmp_path, request, monkeypatch):
    monkeypatch.setenv("JFT_CACHE", str(tmp_path / "cache"))
    path, options = MAKERS[name](name, tmp_path, request)
    source = load_source(name, path, **options)
    assert isinstance(source, Source)
    copy = pickle.loads(pickle.dumps(source))
    assert repr(source) == repr(load_source(name, path, **options)) == repr(copy)
    assert str(tmp_path) not in repr(source)  # not where it lies
    assert str(options.get("data_dir")) not in repr(source)
    assert len(source) == LENGTHS.get(name, 1)
    for index in (0, len(source) - 1):
        row = source[index]
        assert tuple(row) == source.columns
        for column in source.columns:
            assert f"column {column!r}" in source.where(index, column)
            value, value_of_copy = row[column], copy[index][column]
            assert type(value) in (str, int, float, list, dict, np.ndarray)
            if isinstance(value, np.ndarray):
                assert value.dtype == np.uint8
                assert value.ndim == 3
                np.testing.assert_array_equal(value, value_of_copy)
            else:
                assert value == value_of_copy == source.column(column)[index]
    for column in source.columns:
        values = source.column(column)
        assert len(values) == len(source)
        assert str(list(values)) == str([values[i] for i in range(len(source))])
    with pytest.raises(IndexError):
        source[len(source)]
    with pytest.raises(IndexError):
        source.column(source.columns[0])[len(source)]


@pytest.mark.parametrize("name", [*FILES, "parquet", "hf_datasets"])
def test_a_source_reads_what_stands_there(name, tmp_path, request, monkeypatch):
    monkeypatch.setenv("JFT_CACHE", str(tmp_path / "cache"))
    path, options = MAKERS[name](name, tmp_path, request)
    assert "7" in str(load_source(name, path, **options)[0])


def test_digits_are_the_real_ones():
    from sklearn.datasets import load_digits

    real, source = load_digits(), load_digits_source()
    assert len(source) == 1797
    image = source[5]["image"]
    assert image.shape == (8, 8, 1)
    np.testing.assert_array_equal(np.rint(image[..., 0] * (16 / 255)), real.images[5])
    assert source.column("targets") == real.target.tolist()


def test_letters_are_named():
    names = load_source("letters", num_per_class=2).column("targets")
    letters = string.ascii_uppercase + string.ascii_lowercase
    assert names == [name for name in letters for _ in range(2)]
    assert sorted(set(names)) == list(letters)


def test_load_source_refuses():
    with pytest.raises(InputError, match=r"'mnist'.*digits.*folder.*letters"):
        load_source("mnist")
    with pytest.raises(InputError, match=r"\['sed'\].*num_per_class.*seed"):
        load_source("letters", sed=1)
    with pytest.raises(InputError, match=r"\['head'\].*\['delimiter', 'header', 'on"):
        load_source("csv", "a.csv", head=True)
    for name in IN_MEMORY:
        with pytest.raises(InputError, match="reads no files; got path 'somewhere'"):
            load_source(name, "somewhere")
    for name in (*FILES, "folder"):
        with pytest.raises(InputError, match=f"'{name}' needs a path"):
            load_source(name)


def test_options_reach_the_source(tmp_path):
    (tmp_path / "a.csv").write_text("good;1\n'bad';0\n")
    source = load_source("csv", str(tmp_path / "a.csv"), delimiter=";", header=False)
    assert source[1] == {"0": "'bad'", "1": "0"}


@pytest.mark.parametrize(
    ("name", "num_rows"), [("train", 6_920), ("dev", 872), ("test", 1_821)]
)
def test_sst2(shared_data, name, num_rows):
    source = load_source("tsv", str(shared_data / "sst2" / f"{name}.tsv"))
    assert len(source) == num_rows
    rows = select_columns(source, {"text": 0, "targets": 1})
    assert set(rows.column("targets")) == {"0", "1"}
    assert all(rows.column("text"))
