# SPDX-License-Identifier: Apache-2.0
import warnings

import numpy as np
import pytest
from PIL import Image

from jft.data import ImageFolderSource, read_image
from jft.data import folder as folder_module
from jft.types import InputError


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


def test_folder_is_sorted_and_decoded(folder):
    source = ImageFolderSource(folder)
    assert source.class_names == ("ant", "cat")
    assert source.ids == ("ant/z.png", "cat/a.PNG", "cat/b.png")
    assert source.targets.tolist() == [0, 1, 1]
    assert source[0]["image"].shape == (3, 4, 1)
    np.testing.assert_array_equal(source[1]["image"], np.full((3, 4, 3), [4, 5, 6]))
    assert source[2]["id"] == "cat/b.png"


def test_folder_takes_the_order_of_the_classes_it_is_given(folder):
    source = ImageFolderSource(folder, class_names=("cat", "ant"))
    assert source.targets.tolist() == [0, 0, 1]
    assert source[2]["id"] == "ant/z.png"
    assert repr(source) != repr(ImageFolderSource(folder))


def test_folder_repr_sees_new_and_changed_files(folder):
    before = repr(ImageFolderSource(folder))
    save_png(folder / "ant" / "z.png", 9, size=(40, 30), mode="L")
    changed = repr(ImageFolderSource(folder))
    save_png(folder / "ant" / "y.png", 9, mode="L")
    assert len({before, changed, repr(ImageFolderSource(folder))}) == 3


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
        ImageFolderSource(folder)


def test_folder_refuses_other_classes_and_no_folder(folder, tmp_path):
    with pytest.raises(InputError, match=r"\['dog'\].*\['ant'\]"):
        ImageFolderSource(folder, class_names=("cat", "dog"))
    with pytest.raises(InputError, match="there is no folder"):
        ImageFolderSource(folder / "missing")
    with pytest.raises(InputError, match="holds no folder"):
        ImageFolderSource(folder / "cat")


def test_unreadable_images_are_named(tmp_path):
    whole = tmp_path / "whole.png"
    Image.fromarray(
        np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    ).save(whole)
    data = whole.read_bytes()
    bad = {
        "truncated.png": data[: len(data) // 2],
        "text.jpg": b"hello",
        "empty.png": b"",
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    Image.fromarray(np.zeros((2, 2), np.uint16)).save(tmp_path / "deep.png")
    Image.new("RGB", (2, 2)).save(tmp_path / "gif.png", format="GIF")
    for name in [*bad, "deep.png", "gif.png", "absent.png"]:
        with pytest.raises(InputError, match=rf"cannot read the image .*{name}"):
            read_image(tmp_path / name)


@pytest.mark.parametrize("limit", ["ours", "warning", "error"])
def test_decompression_bombs_are_refused(tmp_path, monkeypatch, limit):
    save_png(tmp_path / "bomb.png", 0, size=(20, 10), mode="L")
    if limit == "ours":
        monkeypatch.setattr(folder_module, "MAX_PIXELS", 199)
    else:
        pixels = {"warning": 150, "error": 50}[limit]
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=r"bomb\.png"):
            read_image(tmp_path / "bomb.png")


def test_images_come_upright_and_without_alpha(tmp_path):
    image = Image.new("RGB", (4, 2), (200, 100, 50))
    exif = image.getexif()
    exif[0x0112] = 6  # rotated by 90 degrees
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (4, 2, 3)
    Image.new("RGBA", (4, 2)).save(tmp_path / "alpha.png")
    assert read_image(tmp_path / "alpha.png").shape == (2, 4, 3)
    Image.new("1", (4, 2), 1).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(
        read_image(tmp_path / "bits.png"), np.full((2, 4, 1), 255)
    )


def test_real_photographs(shared_data):
    source = ImageFolderSource(shared_data / "clothing" / "validation")
    assert len(source.class_names) == 10
    assert "t-shirt" in source.class_names
    image = source[len(source) // 2]["image"]
    assert image.dtype == np.uint8
    assert image.shape[-1] == 3
    assert image.std() > 10
