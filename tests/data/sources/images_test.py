# SPDX-License-Identifier: Apache-2.0
"""Images come upright and in 8 bits; one that cannot be read is named."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from jft.data import read_image
from jft.data.sources import images as images_module
from jft.data.sources.images import check_image
from jft.types import InputError


def save_png(path, value, *, size=(4, 3), mode="RGB"):
    Image.new(mode, size, value).save(path)


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
        monkeypatch.setattr(images_module, "MAX_PIXELS", 199)
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


def test_the_content_of_a_file_goes_by_a_name():
    stream = io.BytesIO()
    Image.new("RGB", (4, 3), (1, 2, 3)).save(stream, format="PNG")
    assert read_image(stream.getvalue()).shape == (3, 4, 3)
    assert read_image(stream.getvalue(), channels=1).shape == (3, 4, 1)
    with pytest.raises(InputError, match="cannot read the image row 5: "):
        read_image(b"hello", name="row 5")


def test_check_image_reads_the_header_alone(tmp_path):
    whole = tmp_path / "whole.png"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(whole)
    cut = tmp_path / "cut.png"
    cut.write_bytes(whole.read_bytes()[:5000])
    check_image(whole)
    check_image(cut)
    cut.write_bytes(whole.read_bytes()[:20])
    with pytest.raises(InputError, match=r"cannot read the image .*cut\.png"):
        check_image(cut)
