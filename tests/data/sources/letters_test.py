# SPDX-License-Identifier: Apache-2.0
"""Printed letters depend on the seed alone and look as the digits do."""

from pathlib import Path

import numpy as np
import pytest
from PIL import ImageFont

from jft.data import (
    load_source,
)
from jft.data.sources.catalog import load_digits_source
from jft.data.sources.letters import (
    CLASS_NAMES,
    FACES,
    GLYPH_HEIGHT,
    _glyph,
    render_letters,
)
from jft.types import InputError


@pytest.fixture(scope="module")
def letters():
    return render_letters(12, seed=0)


def test_shape_order_and_names(letters):
    image, targets = letters
    assert image.shape == (52 * 12, 8, 8, 1)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(targets, np.repeat(np.arange(52), 12))
    assert (
        "".join(CLASS_NAMES) == "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    )
    source = load_source("letters", num_per_class=12, seed=0)
    assert source.column("targets") == [CLASS_NAMES[i] for i in targets]
    np.testing.assert_array_equal(source[100]["image"], image[100])


def test_the_seed_alone_decides(letters):
    again, other = render_letters(12, seed=0)[0], render_letters(12, seed=1)[0]
    np.testing.assert_array_equal(letters[0], again)
    assert (letters[0] != other).any(axis=(1, 2, 3)).mean() > 0.99


def test_letters_of_a_class_vary(letters):
    image, targets = letters
    for target in range(52):
        flat = image[targets == target].reshape(12, -1)
        assert len(np.unique(flat, axis=0)) == 12


def test_the_look_is_that_of_the_digits():
    """What pre-training must share with its target: levels, place, size and ink."""
    image = render_letters(30, seed=0)[0][..., 0]
    digits = load_digits_source()
    real = np.stack([digits[i]["image"][..., 0] for i in range(len(digits))])
    assert set(np.unique(image)) == set(np.unique(real))
    assert abs(image.mean() / real.mean() - 1) < 0.2
    for axes in ((0, 1), (0, 2)):
        profile, target = image.mean(axes) / 255, real.mean(axes) / 255
        assert abs(profile - target).max() < 0.25
    assert (image[:, [0, -1]].max(axis=(1, 2)) > 100).mean() > 0.95  # the full height


def test_small_and_capital_letters_are_drawn_at_one_height():
    """So that a pen of a given width means the same for both."""
    for face in FACES:
        for name in "OoXxjl":
            rows = _glyph(face, name, 0)[1][:, 1]
            assert abs(rows.max() - rows.min() - GLYPH_HEIGHT) <= 3


def test_letters_can_be_told_apart():
    """The nearest class mean reads held-out letters, but for case twins."""
    image, _ = render_letters(30, seed=0)
    held_out, truth = render_letters(10, seed=1)
    means = image.reshape(52, 30, -1).mean(axis=1)
    distances = np.linalg.norm(
        held_out.reshape(len(truth), 1, -1) - means[None], axis=-1
    )
    folded = np.array([ord(name.lower()) for name in CLASS_NAMES])
    right = folded[distances.argmin(axis=1)] == folded[truth]
    assert right.mean() > 0.7


def test_every_face_is_there_upright_and_has_latin_letters():
    import matplotlib

    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    for face in FACES:
        font = ImageFont.truetype(str(folder / f"{face}.ttf"), 20)
        assert not {"Italic", "Oblique"} & set(font.getname()[1].split())
        missing = bytes(font.getmask("\uffff"))
        assert all(bytes(font.getmask(name)) != missing for name in CLASS_NAMES)


def test_none_a_class_is_refused():
    with pytest.raises(InputError, match="at least 1; got 0"):
        render_letters(0, seed=0)
