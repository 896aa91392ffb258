# SPDX-License-Identifier: Apache-2.0
"""Random-access sources: what an example is before anything is done to it."""

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jft.data.letters import CLASS_NAMES as LETTERS
from jft.data.letters import render_letters
from jft.types import InputError

Example = Mapping[str, Any]  # field name -> value of one example

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")
MAX_PIXELS = 89_478_485  # where Pillow begins to speak of a decompression bomb


class Source(Protocol):
    """Examples by position; picklable, and equal sources have an equal ``repr``."""

    class_names: tuple[str, ...]
    targets: np.ndarray  # int32 [N], known without reading an example

    def __len__(self) -> int:
        """Count the examples."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one example; an image is ``image`` uint8 [height, width, channels]."""


class ArraySource:
    """Examples held in memory.

    Args:
      fields: ``{name: array}`` whose first axis counts the examples; must hold
        ``targets``, whole numbers that index ``class_names``.
      class_names: a name for each class.

    Raises:
      InputError: if there are no examples, if the arrays differ in length, or if a
        target lies outside the classes.

    Example:
      >>> source = ArraySource({"targets": np.array([1, 0])}, class_names=("a", "b"))
      >>> len(source), int(source[0]["targets"])
      (2, 1)
    """

    def __init__(
        self, fields: Mapping[str, np.ndarray], *, class_names: Sequence[str]
    ) -> None:
        self.class_names = tuple(class_names)
        lengths = {name: len(values) for name, values in fields.items()}
        if "targets" not in fields or len(set(lengths.values())) != 1:
            raise InputError(
                "an ArraySource needs the field 'targets' and arrays of one length; "
                f"got lengths {lengths}. Give every example every field."
            )
        if not lengths["targets"]:
            raise InputError("an ArraySource needs at least one example; got none.")
        targets = np.asarray(fields["targets"])
        _check_targets(targets, self.class_names)
        self.targets = targets.astype(np.int32)
        self._fields = {**fields, "targets": self.targets}

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: values[index] for name, values in self._fields.items()}

    @cached_property
    def _digest(self) -> str:
        return digest(
            part
            for name, values in sorted(self._fields.items())
            for part in (name, str(values.dtype), str(values.shape), values)
        )

    def __repr__(self) -> str:
        return (
            f"ArraySource({len(self)} examples, {len(self.class_names)} classes, "
            f"{self._digest})"
        )


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
        return digest((*names, *self.class_names))

    def __repr__(self) -> str:
        return (
            f"ImageFolderSource({len(self)} examples, {len(self.class_names)} classes, "
            f"{self._digest})"
        )


def read_image(path: str | Path) -> np.ndarray:
    """Decode an image file to uint8 [height, width, channels], upright.

    Grey stays one channel; everything else becomes RGB.

    Raises:
      InputError: if the file is absent, damaged, of another format, deeper than
        8 bits or has more than 89 million pixels; the message names it.
    """
    from PIL import Image, ImageOps

    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    try:
        # A format that is not named here is never tried: fewer decoders to trust.
        with Image.open(path, formats=("JPEG", "PNG", "WEBP")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are too many")
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"mode {image.mode} is deeper than 8 bits")
            upright = ImageOps.exif_transpose(image)
            pixels = np.asarray(upright.convert("L" if image.mode in "1L" else "RGB"))
    except (OSError, ValueError, SyntaxError, *bombs) as error:
        raise InputError(
            f"cannot read the image {path}: {error}. Expected a whole 8-bit JPEG, PNG "
            f"or WebP file of at most {MAX_PIXELS:,} pixels; replace or remove it."
        ) from error
    return pixels.reshape(*pixels.shape[:2], -1)


def load_digits_source(path: str | None = None) -> ArraySource:
    """scikit-learn's 1,797 handwritten digits, 8x8, grey levels 0 to 255.

    Source: E. Alpaydin, C. Kaynak, UCI Optical Recognition of Handwritten Digits.
    """
    _refuse_path("digits", path)
    from sklearn.datasets import load_digits

    digits = load_digits()
    return ArraySource(
        {
            "image": np.rint(digits.images[..., None] * (255 / 16)).astype(np.uint8),
            "targets": digits.target,
        },
        class_names=tuple("0123456789"),
    )


def load_letters_source(
    path: str | None = None, *, num_per_class: int = 400, seed: int = 0
) -> ArraySource:
    """Printed letters A-Z a-z, rendered from fonts; see `render_letters`."""
    _refuse_path("letters", path)
    image, targets = render_letters(num_per_class, seed=seed)
    return ArraySource({"image": image, "targets": targets}, class_names=LETTERS)


def load_folder_source(
    path: str | None = None, *, class_names: Sequence[str] | None = None
) -> ImageFolderSource:
    """A folder of one folder a class; see `ImageFolderSource`."""
    if path is None:
        raise InputError("the source 'folder' needs a path: a folder of class folders.")
    return ImageFolderSource(path, class_names=class_names)


SOURCES: Mapping[str, Callable[..., Source]] = {
    "digits": load_digits_source,
    "letters": load_letters_source,
    "folder": load_folder_source,
}


def load_source(name: str, path: str | None = None, **options: Any) -> Source:
    """Load the source of that name.

    Args:
      name: a key of ``SOURCES``.
      path: where its files lie; only for sources that read files.
      **options: further keyword arguments of the source.

    Raises:
      InputError: for an unknown name or option; lists the known ones.

    Example:
      >>> len(load_source("digits"))
      1797
    """
    if name not in SOURCES:
        raise InputError(f"unknown source {name!r}; expected one of {sorted(SOURCES)}.")
    known = set(inspect.signature(SOURCES[name]).parameters) - {"path"}
    if unknown := sorted(set(options) - known):
        raise InputError(
            f"unknown options {unknown} of the source {name!r}; it has {sorted(known)}."
        )
    return SOURCES[name](path, **options)


def digest(parts: Any) -> str:
    """Hash strings and arrays, in order, to 16 hexadecimal digits."""
    state = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, str):
            state.update(part.encode() + b"\0")
        else:
            state.update(np.ascontiguousarray(part).tobytes())
    return state.hexdigest()


def _check_targets(targets: np.ndarray, class_names: Sequence[str]) -> None:
    if targets.ndim != 1 or not np.issubdtype(targets.dtype, np.integer):
        raise InputError(
            f"targets must be whole numbers of shape [N]; got {targets.dtype} "
            f"{list(targets.shape)}. Give class ids, not names or one-hot rows."
        )
    outside = np.flatnonzero((targets < 0) | (targets >= len(class_names)))
    if len(outside):
        raise InputError(
            f"example {outside[0]} has target {targets[outside[0]]}, outside the "
            f"{len(class_names)} classes 0 to {len(class_names) - 1} "
            f"({len(outside)} such examples). Correct it or name more classes."
        )


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


def _refuse_path(name: str, path: str | None) -> None:
    if path is not None:
        raise InputError(
            f"the source {name!r} reads no files; got path {path!r}. Set it to None."
        )
