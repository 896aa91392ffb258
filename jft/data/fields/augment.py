# SPDX-License-Identifier: Apache-2.0
"""Random changes of an image that keep its class; numpy only.

Each is ``(image, generator) -> image`` on uint8 [height, width, channels]; the
generator is consumed, and the same generator state gives the same image. A loader
takes them as changes of an example: `get_augmentation`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from jft.data.sources.source import Example
from jft.types import InputError

ImageChange = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def small_affine(
    image: np.ndarray,
    generator: np.random.Generator,
    *,
    max_shift: float = 0.08,
    max_degrees: float = 10.0,
    max_scale: float = 0.1,
    max_shear: float = 0.1,
) -> np.ndarray:
    """Shift, turn, scale and shear a little; what comes in from outside is black.

    Args:
      image: uint8 [height, width, channels]; for small images on black.
      generator: consumed.
      max_shift: largest shift, as a fraction of height and width.
      max_degrees: largest rotation, either way.
      max_scale: largest change of each side's length, as a fraction.
      max_shear: largest horizontal shift of a row, per row of height.

    Returns:
      An image of the same shape, interpolated bilinearly.
    """
    height, width, _ = image.shape
    draws = generator.uniform(-1.0, 1.0, size=6)
    angle = np.deg2rad(max_degrees) * draws[0]
    cos, sin = np.cos(angle), np.sin(angle)
    rotate = np.array([[cos, -sin], [sin, cos]])
    stretch = np.diag(1 + max_scale * draws[1:3])
    slant = np.array([[1.0, 0.0], [max_shear * draws[3], 1.0]])
    shift = max_shift * draws[4:6] * (height, width)
    places = (rotate @ slant @ stretch) @ _centred_grid(height, width)
    return _bilinear(image, places[0] + shift[0], places[1] + shift[1])


def crop_flip(
    image: np.ndarray,
    generator: np.random.Generator,
    *,
    min_area: float = 0.4,
    max_ratio: float = 4 / 3,
) -> np.ndarray:
    """Cut out a random rectangle and mirror half of the images; for photographs.

    The processor resizes the rectangle to the model's size afterwards.

    Args:
      image: uint8 [height, width, channels].
      generator: consumed.
      min_area: smallest share of the image's area that stays.
      max_ratio: largest ratio of the rectangle's sides, relative to the image's.

    Returns:
      An image of another height and width.

    Source: C. Szegedy et al., "Going deeper with convolutions", 2015, section 6.
    """
    area = generator.uniform(min_area, 1.0)
    ratio = np.exp(generator.uniform(-1.0, 1.0) * np.log(max_ratio) / 2)
    place = generator.uniform(size=2)
    sides = np.array(image.shape[:2])
    lengths = np.sqrt(area) * sides * (ratio, 1 / ratio)
    height, width = np.clip(np.rint(lengths).astype(int), 1, sides)
    top, left = np.rint(place * (sides - (height, width))).astype(int)
    image = image[top : top + height, left : left + width]
    return np.ascontiguousarray(image[:, ::-1] if generator.random() < 0.5 else image)


def brightness_contrast(
    image: np.ndarray,
    generator: np.random.Generator,
    *,
    max_change: float = 0.2,
) -> np.ndarray:
    """Scale around the mean grey, then shift, each by at most ``max_change``."""
    contrast, brightness = generator.uniform(-max_change, max_change, size=2)
    mean = image.mean()
    values = np.arange(256)  # all that a pixel can be
    changed = (values - mean) * (1 + contrast) + mean + 255 * brightness
    table = np.rint(np.clip(changed, 0, 255)).astype(np.uint8).tobytes()
    # of bytes, for numpy would make 64-bit indices of the pixels
    translated = bytearray(image.tobytes().translate(table))
    return np.frombuffer(translated, np.uint8).reshape(image.shape)


def photograph(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """`crop_flip`, then `brightness_contrast`."""
    return brightness_contrast(crop_flip(image, generator), generator)


AUGMENTATIONS: Mapping[str, ImageChange] = {
    "small_affine": small_affine,
    "crop_flip": crop_flip,
    "brightness_contrast": brightness_contrast,
    "photograph": photograph,
}


@dataclass(frozen=True)
class AugmentImage:
    """``(example, generator) -> example`` with another ``image``."""

    change: ImageChange

    def __call__(
        self, example: Example, generator: np.random.Generator
    ) -> dict[str, Any]:
        """Change a copy of the example."""
        return {**example, "image": self.change(example["image"], generator)}


def get_augmentation(name: str | None) -> AugmentImage | None:
    """Look an augmentation up, as a change of an example; None is none.

    Raises:
      InputError: if there is none of that name; lists the known ones.

    Example:
      >>> image = np.full((1, 1, 1), 100, np.uint8)
      >>> augment = get_augmentation("brightness_contrast")
      >>> augment({"image": image, "targets": 3}, np.random.default_rng(0))
      {'image': array([[[77]]], dtype=uint8), 'targets': 3}
    """
    if name is None:
        return None
    if name not in AUGMENTATIONS:
        raise InputError(
            f"unknown augmentation {name!r}; expected one of {sorted(AUGMENTATIONS)} "
            "or None. Set data.augment."
        )
    return AugmentImage(AUGMENTATIONS[name])


@lru_cache(maxsize=16)
def _centred_grid(height: int, width: int) -> np.ndarray:
    """Pixel centres (row, column) [2, height * width] from the image's centre."""
    rows, columns = np.mgrid[:height, :width].reshape(2, -1)
    return np.stack([rows - (height - 1) / 2, columns - (width - 1) / 2])


def _bilinear(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Read ``image`` at places from its centre, black outside."""
    height, width, channels = image.shape
    black = np.zeros((height + 2, width + 2, channels), np.float64)
    black[1:-1, 1:-1] = image
    y = np.clip(rows + (height + 1) / 2, 0, height + 0.999)
    x = np.clip(columns + (width + 1) / 2, 0, width + 0.999)
    top, left = y.astype(int), x.astype(int)
    down, right = (y - top)[:, None], (x - left)[:, None]
    upper = black[top, left] * (1 - right) + black[top, left + 1] * right
    lower = black[top + 1, left] * (1 - right) + black[top + 1, left + 1] * right
    values = upper * (1 - down) + lower * down
    return np.asarray(np.rint(values), np.uint8).reshape(image.shape)
