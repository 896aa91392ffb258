# SPDX-License-Identifier: Apache-2.0
"""A line is a row, alone or beside its translation; unequal files are refused."""

import gzip
import pickle

import pytest

from jft.data import (
    Source,
)
from jft.data.sources import blocks
from jft.data.sources.lines import LinesSource
from jft.types import InputError

PAIR = {"text": "a.en", "target_text": "a.de"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JFT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.en").write_text("one\n\nthree\r\n", newline="")
    (tmp_path / "a.de").write_text("eins\nzwei\ndrei", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_lines_side_by_side(chunk, folder, monkeypatch):
    monkeypatch.setattr(blocks, "CHUNK", chunk)
    source = LinesSource(folder, files=PAIR)
    assert isinstance(source, Source)
    assert source.columns == ("text", "target_text")
    assert list(source.column("text")) == ["one", "", "three"]  # a blank line counts
    assert source[2] == {"text": "three", "target_text": "drei"}
    assert source.where(1, "target_text") == "a.de, line 2, column 'target_text'"
    prefix = LinesSource(f"{folder}/a", files={"text": ".en", "target_text": ".de"})
    again = pickle.loads(pickle.dumps(source))
    assert repr(prefix) == repr(source) == repr(again)
    assert again[0] == source[0] == prefix[0]
    swapped = LinesSource(folder, files={"text": "a.de", "target_text": "a.en"})
    assert repr(swapped) != repr(source)


def test_one_file_passes_over_blank_lines(folder):
    source = LinesSource(folder / "a.en")
    assert source.columns == ("text",)
    assert list(source.column("text")) == ["one", "three"]
    assert source.where(1, "text") == "a.en, line 3, column 'text'"
    assert list(LinesSource(folder, files={"text": "a.de"}).column("text"))[1] == "zwei"


def test_packed_files_are_the_same_source(folder):
    files = {}
    for column, name in PAIR.items():
        packed = gzip.compress((folder / name).read_bytes())
        (folder / f"{name}.gz").write_bytes(packed)
        files[column] = f"{name}.gz"
    source = LinesSource(folder, files=files)
    assert repr(source) == repr(LinesSource(folder, files=PAIR))
    assert source.where(0, "text") == "a.en.gz, line 1, column 'text'"
    data = pickle.dumps(source)
    for file in (folder / "cache" / "unpacked").iterdir():
        file.unlink()
    assert pickle.loads(data)[2]["text"] == "three"  # unpacked again


def test_unequal_numbers_of_lines_are_refused(folder):
    (folder / "a.de").write_text("eins\nzwei\ndrei\nvier\n")
    with pytest.raises(InputError, match=r"a\.en has 3, .*a\.de has 4.*line too many"):
        LinesSource(folder, files=PAIR)
    with pytest.raises(InputError, match=r"a\.fr cannot be read"):
        LinesSource(folder, files={**PAIR, "target_text": "a.fr"})


def test_multi30k(shared_data):
    files = {"text": ".en.gz", "target_text": ".de.gz"}
    sizes = {"train": 29_000, "val": 1_014, "test_2016_flickr": 1_000}
    for name, size in sizes.items():
        source = LinesSource(shared_data / "multi30k-en-de" / name, files=files)
        assert len(source) == size
        assert all(all(source[index].values()) for index in range(0, size, 100))
