# SPDX-License-Identifier: Apache-2.0
"""Images in folders, one folder a class, decoded with care."""

import io
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jft.data.sources import digest
from jft.types import InputError

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")
MAX_PIXELS = 89_478_485  # where Pillow begins to speak of a decompression bomb


class ImageFolderSource:
    """One folder a class, one file an example: JPEG, PNG or WebP.

    Hidden files are passed over; any other file that is no image is an error, for a
    format that is not read would otherwise be left out in silence. ``repr`` tells the
    file names and sizes apart, not where the folder lies.

    Args:
      directory: the folder of class folders.
      class_names: the classes in order; None takes the folder names, sorted. Give
        the training classes when reading a test folder.

    Raises:
      InputError: if the folder or a class is empty, if the folders are not the
        classes, or if a file is no image.
    """

    def __init__(
        self, directory: str | Path, *, class_names: Sequence[str] | None = None
    ) -> None:
        self.directory = Path(directory)
        found = _class_folders(self.directory)
        self.class_names = tuple(found if class_names is None else class_names)
        if sorted(self.class_names) != found:
            raise InputError(
                f"the folders in {self.directory} are not the classes: classes "
                f"without a folder {sorted(set(self.class_names) - set(found))}, "
                f"folders without a class {sorted(set(found) - set(self.class_names))}."
                " Rename or remove folders until both are the same."
            )
        files = {name: _image_files(self.directory / name) for name in found}
        self.ids = tuple(
            f"{name}/{f}" for name in self.class_names for f in files[name]
        )
        counts = [len(files[name]) for name in self.class_names]
        self.targets = np.repeat(np.arange(len(counts), dtype=np.int32), counts)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "image": read_image(self.directory / self.ids[index]),
            "targets": self.targets[index],
            "id": self.ids[index],
        }

    @cached_property
    def _digest(self) -> str:
        sizes = ((self.directory / name).stat().st_size for name in self.ids)
        names = (f"{n}:{size}\n" for n, size in zip(self.ids, sizes, strict=True))
        return digest(names)

    def __repr__(self) -> str:
        return (
            f"ImageFolderSource({len(self)} examples, {len(self.class_names)} classes, "
            f"{self._digest})"
        )


def read_image(
    file: str | Path | bytes, *, name: str = "", channels: int | None = None
) -> np.ndarray:
    """Decode an image to uint8 [height, width, channels], upright.

    Args:
      file: its path or its content.
      name: for messages; needed where the content is given.
      channels: 1 for grey or 3 for RGB; with None grey stays one channel and
        everything else becomes RGB.

    Raises:
      InputError: if the file is absent, damaged, of another format, deeper than
        8 bits or has more than 89 million pixels; the message names it.
    """
    from PIL import Image, ImageOps

    stream = io.BytesIO(file) if isinstance(file, bytes) else file
    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    try:
        # A format that is not named here is never tried: fewer decoders to trust.
        with Image.open(stream, formats=("JPEG", "PNG", "WEBP")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are too many")
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"mode {image.mode} is deeper than 8 bits")
            upright = ImageOps.exif_transpose(image)
            grey = image.mode in "1L" if channels is None else channels == 1
            pixels = np.asarray(upright.convert("L" if grey else "RGB"))
    except (OSError, ValueError, SyntaxError, *bombs) as error:
        raise InputError(
            f"cannot read the image {name or file}: {error}. Expected a whole 8-bit "
            f"JPEG, PNG or WebP file of at most {MAX_PIXELS:,} pixels; replace or "
            "remove it."
        ) from error
    return pixels.reshape(*pixels.shape[:2], -1)


def _class_folders(directory: Path) -> list[str]:
    if not directory.is_dir():
        raise InputError(
            f"there is no folder {directory}; expected one folder a class."
        )
    names = sorted(
        entry.name
        for entry in directory.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    )
    if not names:
        raise InputError(
            f"{directory} holds no folder; expected one folder a class with its images."
        )
    return names


def _image_files(folder: Path) -> list[str]:
    names = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    other = [n for n in names if not n.lower().endswith(IMAGE_SUFFIXES)]
    if other:
        raise InputError(
            f"{folder / other[0]} is none of {', '.join(IMAGE_SUFFIXES)} "
            f"({len(other)} such files in this folder). Convert or remove it."
        )
    if not names:
        raise InputError(
            f"the class folder {folder} is empty; add images or remove the folder."
        )
    return names
