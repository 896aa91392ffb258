# SPDX-License-Identifier: Apache-2.0
"""The sources that a config can name."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jft.data.delimited import read_table
from jft.data.folder import ImageFolderSource
from jft.data.letters import CLASS_NAMES as LETTERS
from jft.data.letters import render_letters
from jft.data.sources import ArraySource, Source
from jft.data.text import TextSource
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
    text_column: int | str = 0,
    label_column: int | str = 1,
    pair_column: int | str | None = None,
    header: bool = False,
    class_names: Sequence[str] | None = None,
) -> TextSource:
    """Rows of tab-separated values, quotes like any other character; `TextSource`.

    Args:
      path: the file, UTF-8.
      text_column: position from 0, or a name in the header.
      label_column: likewise.
      pair_column: of a second text, or None.
      header: whether the first row names the columns.
      class_names: the classes in order; None takes the labels that are found, sorted.
    """
    return TextSource(
        read_table(
            _need_path("tsv", path), delimiter="\t", quoted=False, header=header
        ),
        text_column=text_column,
        label_column=label_column,
        pair_column=pair_column,
        class_names=class_names,
    )


def load_csv_source(
    path: str | None = None,
    *,
    text_column: int | str = "text",
    label_column: int | str = "label",
    pair_column: int | str | None = None,
    header: bool = True,
    delimiter: str = ",",
    class_names: Sequence[str] | None = None,
) -> TextSource:
    """Rows of quoted, comma-separated values (RFC 4180); as `load_tsv_source`."""
    if len(delimiter) != 1:
        raise InputError(
            f"the delimiter of a CSV file is one character; got {delimiter!r}."
        )
    file = _need_path("csv", path)
    return TextSource(
        read_table(file, delimiter=delimiter, quoted=True, header=header),
        text_column=text_column,
        label_column=label_column,
        pair_column=pair_column,
        class_names=class_names,
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
