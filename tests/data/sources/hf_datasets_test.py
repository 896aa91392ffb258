# SPDX-License-Identifier: Apache-2.0
"""Rows of a Hugging Face data set are plain values; its repr follows the content."""

import io
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from jft.data import Source
from jft.data.sources.hf_datasets import HfDatasetSource
from jft.data.sources.slices import check_slices
from jft.types import InputError

datasets = pytest.importorskip("datasets", reason="needs jft[hf]")
ROOT = Path(__file__).parents[3]
COUNT = 40


def png(number):
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.full((2, 3, 3), number, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def make_rows(count=COUNT):
    words = [["a", "fine", "filmé"][: 1 + i % 3] for i in range(count)]
    return {
        "id": list(range(count)),
        "text": [None if i % 30 == 3 else f"filmé {i}" for i in range(count)],
        "label": [{4: -1, 5: None}.get(i % 30, i % 2) for i in range(count)],
        "words": words,
        "ner_tags": [[int(word == "fine") for word in row] for row in words],
        "image": [{"bytes": png(i), "path": f"{i}.png"} for i in range(count)],
        "answers": [{"text": w[1:], "answer_start": [3] * len(w[1:])} for w in words],
        "messages": [[{"role": "user", "content": f"hi {i}"}] for i in range(count)],
        "calls": [{"name": "f", "x": [i, None]} for i in range(count)],
        "grid": [[[i, 1], [2, 3]] for i in range(count)],
        "meta": [{"level": i % 3, "line": i} for i in range(count)],
    }


def make_features():
    kinds = datasets
    return kinds.Features(
        {
            "id": kinds.Value("int64"),
            "text": kinds.Value("string"),
            "label": kinds.ClassLabel(names=["bad", "good"]),
            "words": kinds.List(kinds.Value("string")),
            "ner_tags": kinds.Sequence(kinds.ClassLabel(names=["O", "B-ADJ"])),
            "image": kinds.Image(),
            "answers": kinds.Sequence(
                {"text": kinds.Value("string"), "answer_start": kinds.Value("int32")}
            ),
            "messages": kinds.List(
                {"role": kinds.Value("string"), "content": kinds.Value("string")}
            ),
            "calls": kinds.Json(),
            "grid": kinds.Array2D((2, 2), "int64"),
            "meta": {
                "level": kinds.ClassLabel(num_classes=3),
                "line": kinds.Value("int8"),
            },
        }
    )


@pytest.fixture(scope="module")
def toy():
    return datasets.Dataset.from_dict(make_rows(), features=make_features())


@pytest.fixture(scope="module")
def saved(toy, tmp_path_factory):
    """A folder with the splits train (the first 30 rows) and test."""
    folder = tmp_path_factory.mktemp("saved") / "toy"
    splits = {"train": toy.select(range(30)), "test": toy.select(range(30, COUNT))}
    datasets.DatasetDict(splits).save_to_disk(str(folder))
    return folder


def plain(value):
    """What a test can compare with ==."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


def test_rows_are_plain_python(toy):
    source = HfDatasetSource(toy)
    assert isinstance(source, Source)
    assert len(source) == COUNT
    row = source[7]
    assert row["image"].dtype == np.uint8
    np.testing.assert_array_equal(row["image"], np.full((2, 3, 3), 7))
    np.testing.assert_array_equal(row["grid"], [[7, 1], [2, 3]])
    del row["image"], row["grid"]
    assert row == {
        "id": 7,
        "text": "filmé 7",
        "label": "good",
        "words": ["a", "fine"],
        "ner_tags": ["O", "B-ADJ"],
        "answers": {"text": ["fine"], "answer_start": [3]},
        "messages": [{"role": "user", "content": "hi 7"}],
        "calls": {"name": "f", "x": [7, None]},
        "meta": {"level": "1", "line": 7},
    }
    assert source[3]["text"] is None
    assert source[4]["label"] is source[5]["label"] is None
    with pytest.raises(IndexError):
        source[COUNT]


def test_columns_agree_with_rows_and_decode_no_image(saved, monkeypatch):
    source = HfDatasetSource(saved, split="train[5:]+test")
    rows = [source[i] for i in range(len(source))]
    assert [row["id"] for row in rows] == list(range(5, COUNT))
    monkeypatch.setattr(
        "jft.data.sources.hf_datasets.read_image", None
    )  # an error if called
    for name in set(source.columns) - {"image"}:
        found = [plain(value) for value in source.column(name)]
        assert found == [plain(row[name]) for row in rows], name
    assert source.column("image")[:2] == ["5.png", "6.png"]
    repr(source)
    few = HfDatasetSource(saved, columns=["label", "id"])
    assert few.columns == ("label", "id")
    assert few[2] == {"label": "bad", "id": 2}


def test_values_are_those_of_the_library(toy):
    source = HfDatasetSource(toy, columns=["id", "words", "answers", "calls", "grid"])
    for index in range(COUNT):
        theirs = {name: plain(toy[index][name]) for name in source.columns}
        assert {k: plain(v) for k, v in source[index].items()} == theirs
    names = toy.features["label"].int2str
    labels = [
        None if i % 30 in (4, 5) else names(toy[i]["label"]) for i in range(COUNT)
    ]
    assert list(HfDatasetSource(toy).column("label")) == labels


def test_where_counts_in_the_whole_split(saved):
    source = HfDatasetSource(saved, split="train[20:]+test[3:]")
    assert source.where(0, "text") == "toy, train, row 20, column 'text'"
    assert source.where(9, "text") == "toy, train, row 29, column 'text'"
    assert source.where(10, "text") == "toy, test, row 3, column 'text'"
    assert source[10]["id"] == 33


def test_images_are_upright_have_the_modes_channels_or_name_the_row(tmp_path):
    from PIL import Image

    Image.new("RGB", (4, 2)).save(tmp_path / "a.png")
    kinds = datasets.Features({"image": datasets.Image(mode="L")})
    rows = {"image": [str(tmp_path / "a.png"), {"bytes": b"no image", "path": None}]}
    source = HfDatasetSource(datasets.Dataset.from_dict(rows, features=kinds))
    assert source[0]["image"].shape == (2, 4, 1)
    assert list(source.column("image")) == [
        str(tmp_path / "a.png"),
        "the data set, train, row 1",
    ]
    with pytest.raises(InputError, match="image the data set, train, row 1: cannot"):
        source[1]


def test_repr_follows_content_not_origin(toy, saved, tmp_path):
    same = repr(HfDatasetSource(saved, split="test"))
    toy.select(range(30, COUNT)).save_to_disk(str(tmp_path / "again"))
    assert repr(HfDatasetSource(tmp_path / "again")) == same
    shuffled = toy.shuffle(seed=0)
    order = np.argsort(shuffled["id"][:])[30:]
    assert repr(HfDatasetSource(shuffled.select(order.tolist()))) == same
    assert repr(HfDatasetSource(toy, split="train[30:]")) == same
    assert str(tmp_path) not in same

    def changed(**changes):
        rows = {**toy[:], **make_rows(), **changes}
        other = datasets.Dataset.from_dict(rows, features=make_features())
        return repr(HfDatasetSource(other, split="train[30:]"))

    assert changed() == same
    rows = make_rows()
    others = [
        changed(text=[*rows["text"][:-1], "filmé 3x"]),
        changed(label=[*rows["label"][:-1], None]),
        changed(ner_tags=[*rows["ner_tags"][:-1], [1]]),
        changed(image=[*rows["image"][:-1], {"bytes": png(0), "path": "x.png"}]),
        repr(HfDatasetSource(toy, split="train[29:39]")),
        repr(HfDatasetSource(toy, split="train[30:]", columns=["text"])),
    ]
    assert len({same, *others}) == 1 + len(others)


def test_repr_sees_the_names_of_classes(toy):
    def named(*names):
        kinds = datasets.Features({"label": datasets.ClassLabel(names=names)})
        rows = {"label": [0, 1, 0]}
        return repr(HfDatasetSource(datasets.Dataset.from_dict(rows, features=kinds)))

    assert named("a", "b") == named("a", "b") != named("b", "a")


def test_a_copy_through_pickle_is_the_same_source(toy, saved):
    for source in (HfDatasetSource(toy, split="train[3:9]"), HfDatasetSource(saved)):
        copy = pickle.loads(pickle.dumps(source))
        assert repr(copy) == repr(source)
        assert [plain(row) for row in copy] == [plain(row) for row in source]
        assert copy.where(2, "id") == source.where(2, "id")
    assert len(pickle.dumps(HfDatasetSource(saved))) < 10_000  # files, not their rows
    part = toy.select([1, 5, 2])  # a view of a table
    copy = pickle.loads(pickle.dumps(HfDatasetSource(part)))
    with pytest.raises(InputError, match="share 3 rows of a table"):
        check_slices({"train": copy, "test": HfDatasetSource(toy)})


def test_the_number_of_readers_does_not_matter(saved):
    source = HfDatasetSource(saved)
    alone = [plain(row) for row in source]
    with ThreadPoolExecutor(8) as pool:
        order = list(range(30)) * 5
        together = list(pool.map(lambda index: plain(source[index]), order))
    assert together == alone * 5


def test_another_process_finds_the_same_repr(saved):
    code = f"""
from jft.data.sources.hf_datasets import HfDatasetSource
print(repr(HfDatasetSource({str(saved)!r}, split="train[:50%]")))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout.strip() == repr(HfDatasetSource(saved, split="train[:15]"))


def test_splits_of_one_folder_may_not_share_rows(saved):
    train = HfDatasetSource(saved, split="train[:80%]")
    check_slices({"train": train, "test": HfDatasetSource(saved, split="train[80%:]")})
    check_slices({"train": train, "test": HfDatasetSource(saved, split="test")})
    other = HfDatasetSource(str(saved) + "/../toy", split="train[70%:]")
    with pytest.raises(InputError, match=r"share 3 rows of .*toy, train: 21 to 23"):
        check_slices({"train": train, "test": other})


def test_splits_of_one_table_are_compared_by_index(toy):
    parts = toy.train_test_split(0.25, seed=0)
    train, test = (HfDatasetSource(parts, split=name) for name in ("train", "test"))
    check_slices({"train": train, "test": test})
    again = toy.train_test_split(0.25, seed=1)["test"]
    shared = set(parts["train"]["id"][:]) & set(again["id"][:])
    message = f"share {len(shared)} rows of a table of 40 rows"
    with pytest.raises(InputError, match=message):
        check_slices({"train": train, "test": HfDatasetSource(again)})
    half = HfDatasetSource(toy, split="train[:50%]")
    check_slices({"train": half, "test": HfDatasetSource(toy, split="train[50%:]")})
    with pytest.raises(InputError, match="share 20 rows"):
        check_slices({"train": half, "test": HfDatasetSource(toy)})


def test_a_folder_of_data_files(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "films"
    folder.mkdir()
    (folder / "train.csv").write_text("text,label\ngood,1\nbad,0\n")
    source = HfDatasetSource(folder)
    assert [source[i] for i in range(2)] == [
        {"text": "good", "label": 1},
        {"text": "bad", "label": 0},
    ]
    assert source.where(1, "text") == "films, train, row 1, column 'text'"
    named = HfDatasetSource(folder, config="default")
    assert repr(named) == repr(source)
    assert named.name == "films/default"
    with pytest.raises(InputError, match="'a' and 'b' share 2 rows"):
        check_slices({"a": source, "b": named})


def test_code_of_a_data_set_is_not_run(tmp_path):
    mark = tmp_path / "was run"
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "films.py").write_text(f"open({str(mark)!r}, 'w')")
    with pytest.raises(InputError, match=r"films cannot be loaded: .*is never run"):
        HfDatasetSource(tmp_path / "films")
    assert not mark.exists()


def test_offline_is_explained():
    with pytest.raises(InputError, match="someone/films cannot be had from the H"):
        HfDatasetSource("someone/films", config="de", revision="v1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "valid"}, r"toy has no split 'valid'; it has \['test', 'train'\]"),
        ({"split": "train[:31]"}, "'train' of toy has 30 rows"),
        (
            {"columns": ["text", "lable"]},
            r"toy has no columns \['lable'\]; it has .*'lab",
        ),
        ({"config": "de"}, "written by save_to_disk, which keeps one config.*got 'de'"),
    ],
)
def test_what_is_not_there_is_refused(saved, options, message):
    with pytest.raises(InputError, match=message):
        HfDatasetSource(saved, **options)


def test_what_is_no_data_set_is_refused(toy, tmp_path):
    with pytest.raises(InputError, match=r"got a generator. A stream has no rows by"):
        HfDatasetSource(row for row in toy)
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(
            InputError, match=f"{path} cannot be loaded.*Expected a name"
        ):
            HfDatasetSource(path)
    assert list(HfDatasetSource(toy, split="train[:2]").column("id")) == [0, 1]
    with pytest.raises(InputError, match=r"has no split 'train'; it has \['test'\]"):
        HfDatasetSource(datasets.Dataset.from_dict({"a": [1]}, split="test"))


def test_the_absent_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'jft\[hf\]'"):
        HfDatasetSource("films")
