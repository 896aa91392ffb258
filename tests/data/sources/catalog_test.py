# SPDX-License-Identifier: Apache-2.0
import json
import pickle
import string

import numpy as np
import pytest
from PIL import Image

from jft.data import SOURCES, Source, load_digits_source, load_source, select_columns
from jft.types import InputError

FILES = {  # one row each that says 7
    "tsv": "so good\t7\n",
    "csv": 'text,label\n"so, good",7\n',
    "jsonl": '{"text": "so good", "label": 7}\n',
    "conll": "so O\ngood 7\n",
    "lines": "seven\n",
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


@pytest.fixture
def sources(tmp_path):
    """Loads one source of every name."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "folder" / "ant").mkdir(parents=True)
    Image.new("RGB", (4, 3), (1, 2, 3)).save(tmp_path / "folder" / "ant" / "a.png")

    def load():
        paths = {name: str(tmp_path / name) for name in (*FILES, "folder")}
        read = {name: load_source(name, path) for name, path in paths.items()}
        held = {name: load_source(name, **IN_MEMORY[name]) for name in IN_MEMORY}
        return {**read, **held}

    return load


def test_every_source_keeps_the_contract(sources):
    first, again = sources(), sources()
    assert set(first) == set(SOURCES)
    for name, source in first.items():
        assert isinstance(source, Source)
        copy = pickle.loads(pickle.dumps(source))
        assert repr(source) == repr(again[name]) == repr(copy)
        assert "/" not in repr(source)  # not where it lies
        assert len(source) == {"digits": 1797, "letters": 52}.get(name, 1)
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
        assert all(len(source.column(c)) == len(source) for c in source.columns)
        with pytest.raises(IndexError):
            source[len(source)]


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
