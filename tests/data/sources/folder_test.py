# SPDX-License-Identifier: Apache-2.0
"""Images have their columns from folders, names of files or a table."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from jft.data import (
    IMAGES,
    Source,
)
from jft.data.sources.folder import FolderSource
from jft.types import InputError

SPOKEN = r"(?P<targets>\d)_(?P<speaker>\w+)_\d+\.(jpg|png)"


def save_png(path, value, *, size=(4, 3), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


@pytest.fixture
def folder(tmp_path):
    save_png(tmp_path / "cat" / "b.png", (1, 2, 3))
    save_png(tmp_path / "cat" / "a.PNG", (4, 5, 6))
    save_png(tmp_path / "ant" / "z.png", 7, mode="L")
    (tmp_path / "ant" / ".DS_Store").write_bytes(b"no image")
    (tmp_path / ".git").mkdir()
    return tmp_path


@pytest.fixture
def flat(tmp_path):
    for name in ("0_anna_0.png", "1_anna_0.png", "0_bob_12.png"):
        save_png(tmp_path / name, 7)
    (tmp_path / ".hidden.png").write_bytes(b"no image")
    return tmp_path


@pytest.fixture
def listed(tmp_path):
    """Images anywhere below the folder, and what a table says of them."""
    save_png(tmp_path / "one.png", (1, 2, 3))
    save_png(tmp_path / "more" / "two.png", (4, 5, 6))
    (tmp_path / "metadata.csv").write_text(
        'file_name,targets,note\n./more/two.png,cat,"so, so"\none.png,ant,\n'
    )
    return tmp_path


def test_folder_is_sorted_and_decoded(folder):
    source = FolderSource(folder)
    assert isinstance(source, Source)
    assert source.columns == ("image", "targets", "id")
    assert source.column("targets") == ["ant", "cat", "cat"]
    assert source.column("id") == ["ant/z.png", "cat/a.PNG", "cat/b.png"]
    assert source.column("image") == source.column("id")
    assert source[0]["image"].shape == (3, 4, 1)
    np.testing.assert_array_equal(source[1]["image"], np.full((3, 4, 3), [4, 5, 6]))
    assert source[2]["id"] == "cat/b.png"
    assert source.where(2, "targets") == "cat/b.png, column 'targets'"


def test_columns_from_the_names_of_files(flat):
    source = FolderSource(flat, pattern=SPOKEN)
    assert source.columns == ("image", "targets", "speaker", "id")
    assert source.column("id") == ["0_anna_0.png", "0_bob_12.png", "1_anna_0.png"]
    assert source.column("targets") == ["0", "0", "1"]
    row = source[1]
    assert (row["speaker"], row["image"].shape) == ("bob", (3, 4, 3))
    for name in source.column("id"):
        (flat / "more").mkdir(exist_ok=True)
        (flat / name).rename(flat / "more" / name)
    below = FolderSource(flat, pattern=r"(?P<id>.*/(?P<targets>\d)_.*)")
    assert below.columns == ("image", "id", "targets")
    assert below[1]["id"] == "more/0_bob_12.png"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            r"(?P<targets>\d)_anna.*",
            r"0_bob_12\.png does not match .*1 such files",
        ),
        (r"(?P<targets>\d)", "0_anna_0.*whole path '0_anna_0.png'"),
        (r"\d.*", "no named group"),
        (r"(?P<targets>\d", "no regular expression"),
        (r"(?P<image>\d).*", "has a column 'image'"),
    ],
)
def test_patterns_that_do_not_fit(flat, pattern, message):
    with pytest.raises(InputError, match=message):
        FolderSource(flat, pattern=pattern)


def test_columns_from_a_table(listed):
    source = FolderSource(listed, metadata="metadata.csv")
    assert source.columns == ("image", "targets", "note", "id")
    assert source.column("id") == ["more/two.png", "one.png"]  # in the table's order
    assert source.column("note") == ["so, so", ""]
    np.testing.assert_array_equal(source[0]["image"], np.full((3, 4, 3), [4, 5, 6]))
    assert source.where(1, "targets") == "metadata.csv, line 3, column 'targets'"
    rows = [
        {"file_name": "more/two.png", "targets": 0, "words": ["a"]},
        {"file_name": "one.png", "targets": 1, "words": []},
    ]
    (listed / "metadata.csv").unlink()
    (listed / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = FolderSource(listed, metadata="metadata.jsonl")
    assert source[1]["targets"] == 1
    assert source[0]["words"] == ["a"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            "file_name,a\none.png,1\ntwo.png,2\n",
            r"line 3.* absent file .*'two\.png'",
        ),
        ("file_name,a\none.png,1\n", r"two\.png is not in metadata\.csv \(1 such"),
        (
            "file_name,a\none.png,1\nmore/two.png,2\n./one.png,3\n",
            r"line 2.*lists a file twice .*'one\.png'",
        ),
        ("file_name,a\n../one.png,1\n", r"an absent file .*'\.\./one\.png'"),
        ("name,a\none.png,1\n", r"\['name', 'a'\]; expected 'file_name'"),
        ("file_name,image\none.png,1\nmore/two.png,2\n", "has a column 'image'"),
        ("file_name,a\none.png\n", r"metadata\.csv, line 2 has 1 columns"),
    ],
)
def test_tables_that_do_not_fit(listed, table, message):
    (listed / "metadata.csv").write_text(table)
    with pytest.raises(InputError, match=message):
        FolderSource(listed, metadata="metadata.csv")


def test_a_folder_takes_one_of_pattern_and_table(listed):
    with pytest.raises(InputError, match="not both"):
        FolderSource(listed, metadata="metadata.csv", pattern=SPOKEN)
    with pytest.raises(InputError, match=r"neither \.csv nor \.jsonl"):
        FolderSource(listed, metadata="metadata.xlsx")
    with pytest.raises(InputError, match=r"absent\.csv cannot be read"):
        FolderSource(listed, metadata="absent.csv")


def test_unreadable_images_can_be_left_out(listed):
    (listed / "one.png").write_bytes(b"hello")
    source = FolderSource(listed, metadata="metadata.csv", on_error="skip")
    assert source.column("id") == ["more/two.png"]
    assert (len(source), source.num_skipped) == (1, 1)
    assert "cannot read the image" in source.skipped[0]
    assert "one.png" in source.skipped[0]
    save_png(listed / "three.png", 5)
    with (listed / "metadata.csv").open("a") as table:
        table.write("three.png,ant,\n")
    source = FolderSource(listed, metadata="metadata.csv", on_error="skip")
    assert source[1]["id"] == "three.png"
    assert source.where(1, "targets") == "metadata.csv, line 4, column 'targets'"
    whole = FolderSource(listed, metadata="metadata.csv")
    assert len(whole) == 3
    with pytest.raises(InputError, match=r"one\.png"):
        whole[1]
    for path in listed.rglob("*.png"):
        path.write_bytes(b"hello")
    with pytest.raises(InputError, match=r"has no row.*Of 3 that were skipped: cannot"):
        FolderSource(listed, metadata="metadata.csv", on_error="skip")


def test_repr_sees_files_and_columns_and_not_the_place(folder, tmp_path_factory):
    before = FolderSource(folder)
    moved = tmp_path_factory.mktemp("elsewhere")
    for name in before.column("id"):
        (moved / name).parent.mkdir(exist_ok=True)
        (moved / name).write_bytes((folder / name).read_bytes())
    same = FolderSource(moved)
    again = pickle.loads(pickle.dumps(same))
    assert repr(before) == repr(same) == repr(again)
    np.testing.assert_array_equal(again[0]["image"], same[0]["image"])
    pattern = r"(?P<targets>\w)\w*/.*"
    found = {repr(before), repr(FolderSource(folder, pattern=pattern))}
    save_png(folder / "ant" / "z.png", 9, size=(40, 30), mode="L")
    found.add(repr(FolderSource(folder)))
    save_png(folder / "ant" / "y.png", 9, mode="L")
    found.add(repr(FolderSource(folder)))
    assert len(found) == 4


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "ant" / "z.png").unlink(), "ant is empty"),
        (lambda f: (f / "ant" / "notes.txt").write_text("x"), "notes.txt is none of"),
        (lambda f: (f / "ant" / "deeper").mkdir(), "deeper is none of"),
    ],
)
def test_folder_refuses(folder, damage, message):
    damage(folder)
    with pytest.raises(InputError, match=message):
        FolderSource(folder)


def test_folder_refuses_no_folder_and_no_files(folder):
    with pytest.raises(InputError, match="there is no folder"):
        FolderSource(folder / "missing")
    with pytest.raises(InputError, match=r"holds no folder.*Set pattern"):
        FolderSource(folder / "cat")
    with pytest.raises(InputError, match="holds no file"):
        FolderSource(folder / ".git", pattern=SPOKEN)
    (folder / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"notes\.txt is none of"):
        FolderSource(folder, pattern=r"(?P<targets>.*)/.*")


def test_other_media_enter_by_the_same_door(tmp_path):
    (tmp_path / "a_1.wav").write_bytes(bytes([1, 2, 3]))
    sound = IMAGES._replace(
        column="audio",
        suffixes=(".wav",),
        read=lambda path: np.frombuffer(path.read_bytes(), np.uint8),
    )
    source = FolderSource(tmp_path, pattern=r"(?P<targets>\w)_.*", media=sound)
    assert source.columns == ("audio", "targets", "id")
    assert source[0]["audio"].tolist() == [1, 2, 3]
    assert source.column("audio") == ["a_1.wav"]
    assert repr(source) != repr(
        FolderSource(tmp_path, pattern=".*(?P<targets>_).*", media=sound)
    )


def test_real_photographs(shared_data):
    source = FolderSource(shared_data / "clothing" / "validation", on_error="skip")
    assert source.num_skipped == 0
    classes = set(source.column("targets"))
    assert len(classes) == 10
    assert "t-shirt" in classes
    image = source[len(source) // 2]["image"]
    assert image.dtype == np.uint8
    assert image.shape[-1] == 3
    assert image.std() > 10
