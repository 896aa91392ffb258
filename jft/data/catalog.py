# SPDX-License-Identifier: Apache-2.0
"""The sources that a config can name."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jft.data.delimited import load_delimited
from jft.data.folder import ImageFolderSource
from jft.data.letters import CLASS_NAMES as LETTERS
from jft.data.letters import render_letters
from jft.data.mapped import FileSource
from jft.data.sources import ArraySource, Source
from jft.types import InputError


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
        }
    )


def load_letters_source(
    path: str | None = None, *, num_per_class: int = 400, seed: int = 0
) -> ArraySource:
    """Printed letters A-Z a-z, rendered from fonts; see `render_letters`."""
    _refuse_path("letters", path)
    image, targets = render_letters(num_per_class, seed=seed)
    return ArraySource({"image": image, "targets": np.array(LETTERS)[targets]})


def load_folder_source(
    path: str | None = None, *, class_names: Sequence[str] | None = None
) -> ImageFolderSource:
    """A folder of one folder a class; see `ImageFolderSource`."""
    if path is None:
        raise InputError("the source 'folder' needs a path: a folder of class folders.")
    return ImageFolderSource(path, class_names=class_names)


def load_tsv_source(
    path: str | None = None,
    *,
    delimiter: str = "\t",
    quoted: bool = False,
    header: bool = False,
    on_error: str = "error",
) -> FileSource:
    """Rows of tab-separated values, without header and quotes; see `load_delimited`."""
    return load_delimited(
        _need_path("tsv", path),
        delimiter=delimiter,
        quoted=quoted,
        header=header,
        on_error=on_error,
    )


def load_csv_source(
    path: str | None = None,
    *,
    delimiter: str = ",",
    quoted: bool = True,
    header: bool = True,
    on_error: str = "error",
) -> FileSource:
    """Rows of quoted, comma-separated values (RFC 4180); see `load_delimited`."""
    return load_delimited(
        _need_path("csv", path),
        delimiter=delimiter,
        quoted=quoted,
        header=header,
        on_error=on_error,
    )


SOURCES: Mapping[str, Callable[..., Source]] = {
    "digits": load_digits_source,
    "letters": load_letters_source,
    "folder": load_folder_source,
    "tsv": load_tsv_source,
    "csv": load_csv_source,
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


def _refuse_path(name: str, path: str | None) -> None:
    if path is not None:
        raise InputError(
            f"the source {name!r} reads no files; got path {path!r}. Set it to None."
        )


def _need_path(name: str, path: str | None) -> str:
    if path is None:
        raise InputError(
            f"the source {name!r} needs a path: a file, one example a row."
        )
    return path
