# SPDX-License-Identifier: Apache-2.0
"""Rows of TFDS are plain values in its order, without TensorFlow; damage is named."""

import json
import pickle
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from jft.data import Source
from jft.data.sources.slices import check_slices
from jft.data.sources.tfds import TfdsSource
from jft.types import InputError

pytest.importorskip("tensorflow_datasets", reason="needs jft[tfds]")
HERE = Path(__file__).parent
ROOT = HERE.parents[2]


@pytest.fixture
def read(toy_data_dir):
    def open_toy(split="train", name="toy_tfds", **options):
        return TfdsSource(name, split=split, **{"data_dir": toy_data_dir, **options})

    return open_toy


def run(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{HERE}", "HOME": "/nonexistent", **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def plain(value):
    """What a test can compare with ==."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


def test_rows_are_plain_python(read):
    source = read()
    assert isinstance(source, Source)
    assert len(source) == 40
    rows = {row["id"]: row for row in (source[i] for i in range(40))}
    assert sorted(rows) == list(range(40))
    row = rows[7]
    assert row["image"].dtype == np.uint8
    np.testing.assert_array_equal(row["image"], np.full((2, 3, 3), 7))
    np.testing.assert_array_equal(row["grid"], [[7, 8], [9, 10]])
    del row["image"], row["grid"]
    assert row == {
        "id": 7,
        "text": "a dull filmé 7",
        "label": "bad",
        "level": "1",
        "score": 1.75,
        "flag": False,
        "box": [7.0, 8.0, 9.0, 10.0],
        "words": ["a", "dull"],
        "tags": ["O", "B-ADJ"],
        "answers": {"text": ["dull"], "answer_start": [0]},
        "answers/text": ["dull"],
        "answers/answer_start": [0],
        "translation": {"de": "Film 7", "en": "film 7"},
        "translation/de": "Film 7",
        "translation/en": "film 7",
        "source": {"file": {"name": "7.txt"}, "line": 7},
        "source/file": {"name": "7.txt"},
        "source/file/name": "7.txt",
        "source/line": 7,
    }
    assert {type(row[name]) for name in ("id", "score", "flag")} == {int, float, bool}
    assert {type(value) for value in row["box"]} == {float}
    assert type(row["answers/answer_start"][0]) is int
    assert rows[4]["label"] is None  # -1: no label; not the last class
    assert rows[3]["answers"] == {"text": [], "answer_start": []}


def test_columns_agree_with_rows_and_decode_no_image(read, monkeypatch):
    source = read("train[5:30]+test")
    rows = [source[i] for i in range(len(source))]
    monkeypatch.setattr(
        "jft.data.sources.tfds.read_image", None
    )  # calling it is an error
    for name in set(source.columns) - {"image"}:
        found = [plain(value) for value in source.column(name)]
        assert found == [plain(row[name]) for row in rows], name
    assert source.column("image")[0] == "toy_tfds/1.0.0, train, row 5"
    repr(source)
    with pytest.raises(TypeError):
        source[0]


def test_only_the_chosen_columns_are_read(read, monkeypatch):
    monkeypatch.setattr("jft.data.sources.tfds.read_image", None)
    source = read(columns=["answers/text", "label", "id"])
    assert source.columns == ("answers/text", "label", "id")
    row = next(row for row in map(source.__getitem__, range(40)) if row["id"] == 2)
    assert row == {"answers/text": ["fine", "filmé2"], "label": "good", "id": 2}


def test_rows_are_those_of_the_library_in_its_order(read, toy_data_dir):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(toy_data_dir / "toy_tfds" / "1.0.0")
    assert len(builder.info.splits["train"].shard_lengths) == 3
    for split in ("train", "test", "train[13:27]", "train[:50%]", "test+train[-5:]"):
        theirs = [row["id"] for row in builder.as_data_source(split)]
        assert list(read(split).column("id")) == theirs
        assert [row["id"] for row in read(split)] == theirs  # ends with IndexError


def test_where_counts_in_the_whole_split(read):
    source = read("train[30:]+test[4:]")
    whole = {split: read(split).column("id") for split in ("train", "test")}
    for index, number in enumerate(source.column("id")):
        place = source.where(index, "label")
        match = re.fullmatch(
            r"toy_tfds/1\.0\.0, (\w+), row (\d+), column 'label'", place
        )
        assert whole[match[1]][int(match[2])] == number
    assert source.where(0, "x") == "toy_tfds/1.0.0, train, row 30, column 'x'"
    assert source.where(10, "x") == "toy_tfds/1.0.0, test, row 4, column 'x'"


def test_a_name_or_a_folder_and_the_newest_version(read, toy_data_dir, tmp_path):
    folder = toy_data_dir / "toy_tfds" / "1.0.0"
    same = repr(read())
    assert repr(TfdsSource(str(folder))) == same == repr(read(name="toy_tfds:1.0.0"))
    for version in ("1.2.0", "1.10.0"):
        info = json.loads((folder / "dataset_info.json").read_text())
        copy = tmp_path / "toy_tfds" / version
        shutil.copytree(folder, copy)
        (copy / "dataset_info.json").write_text(
            json.dumps({**info, "version": version})
        )
    assert read(data_dir=tmp_path).name == "toy_tfds/1.10.0"
    assert read(name="toy_tfds:1.2.0", data_dir=tmp_path).name == "toy_tfds/1.2.0"


def test_the_default_folder_is_that_of_the_library(toy_data_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(toy_data_dir))
    assert len(TfdsSource("toy_tfds", split="test")) == 10


def test_repr_follows_content_not_place_nor_spelling(
    read, toy_builder_class, toy_data_dir, tmp_path
):
    same = repr(read("train[:50%]"))
    assert same == repr(read("train[:20]"))
    assert str(toy_data_dir) not in same
    builder = toy_builder_class(data_dir=tmp_path)
    builder.download_and_prepare(file_format="array_record")
    # prepared again, in one file: other bytes, the same rows
    assert repr(read("train[:20]", data_dir=tmp_path)) == same
    others = [
        repr(read(split))
        for split in ("train", "train[1:21]", "train[:10]+train[10:20]")
    ]
    others.append(repr(read("train[:20]", columns=["text"])))
    assert len({same, *others}) == 5


def test_repr_sees_another_text_of_the_same_length(toy_builder_class, tmp_path):
    def prepare(folder, text):
        class Other(toy_builder_class, skip_registration=True):
            name = "toy_tfds"

            def _generate_examples(self, split):
                for key, row in super()._generate_examples(split):
                    yield key, row if row["id"] != 7 else {**row, "text": text}

        Other(data_dir=tmp_path / folder).download_and_prepare(
            file_format="array_record"
        )
        return repr(TfdsSource("toy_tfds", data_dir=tmp_path / folder))

    assert prepare("a", "good") == prepare("b", "good") != prepare("c", "dull")


def test_a_copy_through_pickle_is_the_same_source(read):
    source = read("train[:30]", columns=["text", "image", "tags", "id"])
    source[0]
    copy = pickle.loads(pickle.dumps(source))
    assert repr(copy) == repr(source)
    assert [plain(copy[i]) for i in range(30)] == [plain(source[i]) for i in range(30)]
    assert copy.where(29, "id") == source.where(29, "id")


def test_the_number_of_readers_does_not_matter(read):
    source = read(columns=["id", "text", "image"])
    alone = [plain(source[i]) for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        order = list(range(40)) * 5
        together = list(pool.map(lambda index: plain(source[index]), order))
    assert together == alone * 5


def test_tensorflow_is_never_imported(tmp_path):
    code = f"""
import sys
from toy_tfds.toy_tfds_dataset_builder import Builder
from jft.data.sources.tfds import TfdsSource
Builder(data_dir={str(tmp_path)!r}).download_and_prepare(file_format="array_record")
half = TfdsSource("toy_tfds", split="train[:50%]", data_dir={str(tmp_path)!r})
assert len(half) == 20 and half[19]["image"].shape == (2, 3, 3)
assert len(half.column("text")) == 20 and repr(half)
print(sorted(m for m in sys.modules if m.split(".")[0] in ("tensorflow", "torch")))
"""
    assert run(code).splitlines()[-1] == "[]"


def test_splits_may_not_share_rows(read):
    splits = {"train": read("train[:80%]"), "validation": read("train[80%:]")}
    check_slices({**splits, "test": read("test")})
    message = (
        r"'train' and 'validation' share 4 rows of toy_tfds/1.0.0, train: 28 to 31"
    )
    with pytest.raises(InputError, match=message):
        check_slices({**splits, "validation": read("train[70%:]")})


def as_tfrecord(toy_data_dir, tmp_path):
    shutil.copytree(toy_data_dir / "toy_tfds", tmp_path / "toy_tfds")
    info = tmp_path / "toy_tfds" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    return tmp_path


def test_tfrecords_are_refused_with_a_command_that_works(toy_data_dir, tmp_path):
    folder = as_tfrecord(toy_data_dir, tmp_path / "old")
    with pytest.raises(
        InputError, match=r"prepared as .'tfrecord'.*at random"
    ) as caught:
        TfdsSource("toy_tfds", data_dir=folder)
    assert str(folder / "toy_tfds" / "1.0.0") in str(caught.value)
    code = re.search(r'python -c "(.*)"', str(caught.value))[1]
    run(f"import toy_tfds.toy_tfds_dataset_builder; {code}")
    data_dir = re.search(r"data_dir='(.*?)'", code)[1]
    assert len(TfdsSource("toy_tfds", data_dir=data_dir)) == 40


def test_what_is_not_prepared_comes_with_the_command(toy_data_dir, tmp_path):
    for name, data_dir, there in (
        ("toy_tfds:2.0.0", toy_data_dir, r"\['toy_tfds/1.0.0'\]"),
        ("toy_tfds/small", toy_data_dir, r"\['toy_tfds/1.0.0'\]"),
        ("mnist", tmp_path, "nothing"),
    ):
        message = (
            f"{name!r} is not prepared in {data_dir}, which has {there} of it.*"
            rf"tfds.builder\('{name}', data_dir='{data_dir}'\)"
            r"\.download_and_prepare\(file_format='array_record'\)"
        )
        with pytest.raises(InputError, match=message):
            TfdsSource(name, data_dir=data_dir)
    assert not list(tmp_path.iterdir())
    with pytest.raises(
        InputError, match=r"neither a folder with dataset_info.json nor"
    ):
        TfdsSource(str(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "valid"}, r"toy_tfds/1.0.0 has no split 'valid'; it has \['test'"),
        ({"split": "train[:41]"}, "'train' of toy_tfds/1.0.0 has 40 rows"),
        ({"columns": ["text", "lable"]}, r"no columns \['lable'\]; it has .*'label'"),
    ],
)
def test_absent_splits_and_columns_are_listed(read, options, message):
    with pytest.raises(InputError, match=message):
        read(**options)


def test_damage_names_the_row(toy_data_dir, tmp_path):
    shutil.copytree(toy_data_dir / "toy_tfds", tmp_path / "toy_tfds")
    source = TfdsSource("toy_tfds", data_dir=tmp_path, columns=["text"])
    file = next((tmp_path / "toy_tfds" / "1.0.0").glob("*train*-00001-of-*"))
    file.unlink()
    first = int(
        json.loads((file.parent / "dataset_info.json").read_text())["splits"][0][
            "shardLengths"
        ][0]
    )
    assert source[first - 1]
    with pytest.raises(InputError, match=f"train, row {first} cannot be read: open"):
        source[first]
    with pytest.raises(InputError, match="train, row 0 or after cannot be read"):
        list(source.column("text"))


def test_text_that_is_no_text_names_the_row(toy_builder_class, tmp_path):
    class Latin(toy_builder_class, skip_registration=True):
        name = "latin"

        def _generate_examples(self, split):
            for key, row in super()._generate_examples(split):
                yield key, {**row, "text": "filmé".encode("latin-1")}

    Latin(data_dir=tmp_path).download_and_prepare(file_format="array_record")
    with pytest.raises(InputError, match=r"latin/1.0.0, train, row 3 holds bytes that"):
        TfdsSource("latin", data_dir=tmp_path)[3]
    assert TfdsSource("latin", data_dir=tmp_path, columns=["id"])[3]


def test_images_of_more_than_8_bits_are_refused(toy_data_dir, tmp_path):
    shutil.copytree(toy_data_dir / "toy_tfds", tmp_path / "toy_tfds")
    file = tmp_path / "toy_tfds" / "1.0.0" / "features.json"
    file.write_text(file.read_text().replace('"uint8"', '"uint16"'))
    with pytest.raises(InputError, match=r"'image' is Image\(.*uint16.*of 8 bits"):
        TfdsSource("toy_tfds", data_dir=tmp_path)
    assert TfdsSource("toy_tfds", data_dir=tmp_path, columns=["text"])[0]


def test_the_absent_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(InputError, match=r"pip install 'jft\[tfds\]'"):
        TfdsSource("toy_tfds")
