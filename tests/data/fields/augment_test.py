# SPDX-License-Identifier: Apache-2.0
"""A changed image depends on its draws alone and moves as numpy would move it."""

import numpy as np
import pytest

from jft.data import (
    AUGMENTATIONS,
    get_augmentation,
)
from jft.data.fields.augment import brightness_contrast, crop_flip, small_affine
from jft.data.sources.catalog import load_digits_source
from jft.types import InputError

SAME_SHAPE = {"small_affine": True, "crop_flip": False, "brightness_contrast": True}
SAME_SHAPE["photograph"] = False
STILL = dict.fromkeys(["max_shift", "max_degrees", "max_scale", "max_shear"], 0.0)


def make_image(shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_every_augmentation_is_in_the_table():
    assert set(SAME_SHAPE) == set(AUGMENTATIONS)


@pytest.mark.parametrize("shape", [(8, 8, 1), (20, 13, 3)])
@pytest.mark.parametrize("name", SAME_SHAPE)
def test_contract(name, shape):
    augment = get_augmentation(name)
    image = make_image(shape)
    kept = image.copy()
    example = {"image": image, "targets": 2, "id": "a"}
    changed = [augment(example, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert example["image"] is image
    assert all(x | {"image": image} == example for x in changed)
    found = [x["image"] for x in changed]
    np.testing.assert_array_equal(image, kept)
    same = AUGMENTATIONS[name](image, np.random.default_rng(1))
    np.testing.assert_array_equal(found[0], same)
    np.testing.assert_array_equal(found[0], found[1])
    assert found[0].shape != found[2].shape or (found[0] != found[2]).any()
    for result in found:
        assert result.dtype == np.uint8
        assert result.shape[-1] == shape[-1]
        assert result.flags.c_contiguous
        assert result.shape == shape or not SAME_SHAPE[name]


def test_affine_of_nothing_is_the_identity():
    image = make_image((8, 8, 1))
    found = small_affine(image, np.random.default_rng(0), **STILL)
    np.testing.assert_array_equal(found, image)


class Draws(np.random.Generator):
    """A generator whose uniform draws are given."""

    def __init__(self, *values):
        super().__init__(np.random.PCG64(0))
        self.values = np.array(values, float)

    def uniform(self, low, high, size):
        assert (low, high, size) == (-1.0, 1.0, len(self.values))
        return self.values


def affine(image, draws, **most):
    return small_affine(image, Draws(*draws), **{**STILL, **most})


def test_affine_moves_as_numpy_would():
    image = make_image((8, 8, 1))
    shifted = affine(image, (0, 0, 0, 0, 1, 0), max_shift=1 / 8)
    np.testing.assert_array_equal(shifted[:-1], image[1:])
    assert not shifted[-1].any()
    np.testing.assert_array_equal(
        affine(image, (1, 0, 0, 0, 0, 0), max_degrees=90.0), np.rot90(image, -1)
    )
    half = affine(image, (0, 0, 0, 0, 0, 1), max_shift=1 / 16)
    pairs = (image[:, :-1].astype(float) + image[:, 1:]) / 2
    np.testing.assert_array_equal(half[:, :-1], np.rint(pairs))
    wide = make_image((4, 10, 1))
    shifted = affine(wide, (0, 0, 0, 0, 1, -1), max_shift=0.5)
    np.testing.assert_array_equal(shifted[:2, 5:], wide[2:, :5])
    assert not shifted[2:].any()
    assert not shifted[:, :5].any()


def test_affine_leaves_digits_where_they_are_on_average():
    image = load_digits_source()[3]["image"]
    generator = np.random.default_rng(0)
    mean = np.mean([small_affine(image, generator) for _ in range(400)], axis=0)
    assert np.corrcoef(mean.ravel(), image.ravel())[0, 1] > 0.9
    assert abs(mean.mean() / image.mean() - 1) < 0.1


def test_crops_lie_inside_and_keep_the_area():
    rows, columns = np.mgrid[:40, :60].astype(np.uint8)
    image = np.stack([rows, columns, rows], axis=-1)
    areas, flipped = [], 0
    for seed in range(200):
        crop = crop_flip(image, np.random.default_rng(seed), min_area=0.5)
        height, width, _ = crop.shape
        areas.append(height * width / 2400)
        step = np.diff(crop[0, :, 1].astype(int))
        assert set(step) in ({1}, {-1})
        assert set(np.diff(crop[:, 0, 0].astype(int))) == {1}
        flipped += step[0] == -1
    assert 0.45 < min(areas) < 0.55
    assert 0.95 < max(areas) <= 1
    assert 70 < flipped < 130


def test_contrast_keeps_the_mean_and_brightness_moves_it():
    image = np.array([[[100], [150]]], np.uint8)
    changed = [
        brightness_contrast(image, np.random.default_rng(s), max_change=0.2).ravel()
        for s in range(300)
    ]
    means = np.mean(changed, axis=1)
    spreads = np.array([int(b) - int(a) for a, b in changed])
    assert abs(means - 125).max() <= 51 + 1
    assert abs(means - 125).max() > 40
    assert 39 <= spreads.min() < 43 < 57 < spreads.max() <= 61


def test_unknown_name_lists_the_known():
    assert get_augmentation(None) is None
    with pytest.raises(InputError, match=r"'blur'.*small_affine"):
        get_augmentation("blur")
