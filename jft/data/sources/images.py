# SPDX-License-Identifier: Apache-2.0
"""Image files, decoded with care."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jft.types import InputError

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")
MAX_PIXELS = 89_478_485  # where Pillow begins to speak of a decompression bomb


def read_image(
    file: str | Path | bytes, *, name: str = "", channels: int | None = None
) -> np.ndarray:
    """Decode an image to uint8 [height, width, channels], upright.

    Args:
      file: its path or its content.
      name: for messages; the path where it is empty.
      channels: 1 for grey or 3 for RGB; with None grey stays one channel and
        everything else becomes RGB.

    Raises:
      InputError: if the file is absent, damaged, of another format, deeper than
        8 bits or has more than 89 million pixels; the message names it.
    """
    from PIL import ImageOps

    with _open_image(file, name or file) as image:
        upright = ImageOps.exif_transpose(image)
        grey = image.mode in "1L" if channels is None else channels == 1
        pixels = np.asarray(upright.convert("L" if grey else "RGB"))
    return pixels.reshape(*pixels.shape[:2], -1)


def check_image(file: str | Path) -> None:
    """Read the header of an image file; raises as `read_image`."""
    with _open_image(file, file):
        pass


@contextmanager
def _open_image(file: str | Path | bytes, name: object) -> Iterator[Any]:
    """An image of which no pixel is decoded yet; every fault is an InputError."""
    from PIL import Image

    stream = io.BytesIO(file) if isinstance(file, bytes) else file
    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    try:
        # A format that is not named here is never tried: fewer decoders to trust.
        with Image.open(stream, formats=("JPEG", "PNG", "WEBP")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are too many")
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"mode {image.mode} is deeper than 8 bits")
            yield image
    except (OSError, ValueError, SyntaxError, *bombs) as error:
        raise InputError(
            f"cannot read the image {name}: {error}. Expected a whole 8-bit JPEG, PNG "
            f"or WebP file of at most {MAX_PIXELS:,} pixels; replace or remove it."
        ) from error
