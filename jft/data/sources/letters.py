# SPDX-License-Identifier: Apache-2.0
"""Printed letters, rendered from fonts and reduced to the look of 8x8 digits."""

import string
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from jft.types import InputError

CLASS_NAMES = tuple(string.ascii_uppercase + string.ascii_lowercase)

# The upright faces with Latin letters that matplotlib ships (DejaVu, STIX, Computer
# Modern; STIX's size and symbol faces have none), each with the fewest and the most
# pixels that a pen adds to each side of its lines: hairlines must survive the
# reduction to 8x8, and bowls must stay open.
FACES = {
    "DejaVuSans": (0, 4),
    "DejaVuSans-Bold": (0, 0),
    "DejaVuSansMono": (0, 4),
    "DejaVuSansMono-Bold": (0, 0),
    "DejaVuSerif": (1, 3),
    "DejaVuSerif-Bold": (0, 0),
    "STIXGeneral": (1, 4),
    "STIXGeneralBol": (0, 1),
    "cmr10": (2, 5),
    "cmb10": (0, 2),
    "cmss10": (1, 4),
    "cmtt10": (1, 4),
}
GLYPH_HEIGHT = 64  # pixels of the ink of a letter before it is deformed
# scikit-learn's digits were 32x32 bitmaps, counted in blocks of 4x4; each fills the
# height, and hardly any the outer columns.
BITMAP = 32
MAX_WIDTH = 25
BLOCK = 4


def render_letters(
    num_per_class: int,
    *,
    seed: int,
    max_degrees: float = 12.0,
    max_shear: float = 0.25,
    max_squeeze: float = 0.15,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw A-Z and a-z in random faces, strokes, rotations, shears and scales.

    Each letter is deformed, fitted to the height of a 32x32 bitmap and counted in
    blocks of 4x4, as scikit-learn's digits were; so c and C differ by little.

    Args:
      num_per_class: letters of each of the 52 classes.
      seed: of every draw; the same seed gives the same bytes.
      max_degrees: largest rotation, either way.
      max_shear: largest horizontal shift of a row, per row of height.
      max_squeeze: largest change of the width, as a fraction.

    Returns:
      ``(image, targets)``: uint8 [N, 8, 8, 1], white on black, and int32 [N] that
      index ``CLASS_NAMES``; ordered by class.

    Raises:
      InputError: if ``num_per_class`` is below 1.
    """
    if num_per_class < 1:
        raise InputError(f"num_per_class must be at least 1; got {num_per_class}.")
    generator = np.random.default_rng(seed)
    targets = np.repeat(np.arange(len(CLASS_NAMES), dtype=np.int32), num_per_class)
    faces = generator.integers(len(FACES), size=len(targets))
    fewest, most = np.array(list(FACES.values()))[faces].T
    strokes = generator.integers(fewest, most + 1)
    draws = generator.uniform(-1.0, 1.0, size=(len(targets), 3))
    angle = np.deg2rad(max_degrees) * draws[:, 0]
    shear, squeeze = max_shear * draws[:, 1], 1 + max_squeeze * draws[:, 2]
    matrices = _deformations(angle, shear, squeeze)
    names = list(FACES)
    counts = np.stack(
        [
            _block_counts(*_glyph(names[face], CLASS_NAMES[target], stroke), matrix)
            for face, target, stroke, matrix in zip(
                faces.tolist(),
                targets.tolist(),
                strokes.tolist(),
                matrices,
                strict=True,
            )
        ]
    )
    image = np.rint(counts * (255 / BLOCK**2)).astype(np.uint8)
    return image[..., None], targets


def _deformations(
    angle: np.ndarray, shear: np.ndarray, squeeze: np.ndarray
) -> np.ndarray:
    """Matrices [N, 2, 2] on (x, y): squeeze the width, shear, then rotate."""
    cos, sin, one = np.cos(angle), np.sin(angle), np.ones_like(angle)
    rotate = np.array([[cos, -sin], [sin, cos]])
    slant = np.array([[squeeze, shear], [0 * one, one]])
    return np.einsum("ijn,jkn->nik", rotate, slant)


@lru_cache(maxsize=4096)
def _glyph(face: str, letter: str, stroke: int) -> tuple[Any, np.ndarray]:
    """A letter as a grey Pillow image, and its outline's points [M, 2], (x, y)."""
    from PIL import Image, ImageDraw

    above, below = _font(face, GLYPH_HEIGHT).getbbox(letter)[1::2]
    font = _font(face, round(GLYPH_HEIGHT**2 / (below - above)))
    left, top, right, bottom = font.getbbox(letter, stroke_width=stroke)
    size = (int(right - left) + 2, int(bottom - top) + 2)
    image = Image.new("L", size)
    ImageDraw.Draw(image).text(
        (1 - left, 1 - top), letter, fill=255, font=font, stroke_width=stroke
    )
    ink = np.asarray(image) > 127
    first, last = ink.argmax(axis=1), ink.shape[1] - ink[:, ::-1].argmax(axis=1)
    rows = np.flatnonzero(ink.any(axis=1))
    corners = [(x, y + dy) for y in rows for x in (first[y], last[y]) for dy in (0, 1)]
    return image, np.array(corners, np.float64)


@lru_cache(maxsize=1024)
def _font(face: str, size: int) -> Any:
    import matplotlib
    from PIL import ImageFont

    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    return ImageFont.truetype(str(folder / f"{face}.ttf"), size)


def _block_counts(image: Any, outline: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Deform a glyph, fit it to the bitmap and count its ink in blocks, 0 to 16."""
    from PIL import Image

    moved = outline @ matrix.T
    low, high = moved.min(axis=0), moved.max(axis=0)
    width, height = high - low
    scale = np.array([max(height / BITMAP, width / MAX_WIDTH), height / BITMAP])
    # Pillow asks for the way back: from a place in the bitmap to one in the glyph.
    back = np.linalg.inv(matrix)
    a, b, d, e = (back * scale).ravel()
    c, f = back @ ((low + high) / 2 - scale * BITMAP / 2)
    bitmap = image.transform(
        (BITMAP, BITMAP), Image.Transform.AFFINE, (a, b, c, d, e, f),
        Image.Resampling.BILINEAR,
    )  # fmt: skip
    ink = np.asarray(bitmap) > 127
    blocks = ink.reshape(BITMAP // BLOCK, BLOCK, BITMAP // BLOCK, BLOCK)
    return blocks.sum(axis=(1, 3))
