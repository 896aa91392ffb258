# SPDX-License-Identifier: Apache-2.0
"""The sources that a config can name; each one's options are documented at itself."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from jft.data.sources.conll import load_conll
from jft.data.sources.delimited import load_delimited
from jft.data.sources.folder import FolderSource
from jft.data.sources.hf_datasets import HfDatasetSource
from jft.data.sources.jsonl import load_jsonl
from jft.data.sources.letters import CLASS_NAMES as LETTERS
from jft.data.sources.letters import render_letters
from jft.data.sources.lines import LinesSource
from jft.data.sources.parquet import ParquetSource
from jft.data.sources.source import ArraySource, Source
from jft.data.sources.squad import load_squad
from jft.data.sources.tfds import TfdsSource
from jft.types import InputError


def load_digits_source() -> ArraySource:
    """scikit-learn's 1,797 handwritten digits, 8x8, grey levels 0 to 255.

    Source: E. Alpaydin, C. Kaynak, UCI Optical Recognition of Handwritten Digits.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    return ArraySource(
        {
            "image": np.rint(digits.images[..., None] * (255 / 16)).astype(np.uint8),
            "targets": digits.target,
        }
    )


def load_letters_source(*, num_per_class: int = 400, seed: int = 0) -> ArraySource:
    """Printed letters A-Z a-z, rendered from fonts; see `render_letters`."""
    image, targets = render_letters(num_per_class, seed=seed)
    return ArraySource({"image": image, "targets": np.array(LETTERS)[targets]})


# each a function of a path, where it has one that is not by keyword, and of options
SOURCES: Mapping[str, Callable[..., Source]] = {
    "digits": load_digits_source,
    "letters": load_letters_source,
    "folder": FolderSource,
    "tsv": partial(load_delimited, delimiter="\t", quoted=False, header=False),
    "csv": partial(load_delimited, delimiter=",", quoted=True, header=True),
    "jsonl": load_jsonl,
    "conll": load_conll,
    "squad": load_squad,
    "lines": LinesSource,
    "parquet": ParquetSource,
    "tfds": TfdsSource,
    "hf_datasets": HfDatasetSource,
}
# of sources that have parts of their own, the option that takes one
PART_OPTIONS: Mapping[str, str] = {"tfds": "split", "hf_datasets": "split"}


def load_source(name: str, path: str | None = None, **options: Any) -> Source:
    """Load the source of that name.

    Args:
      name: a key of ``SOURCES``.
      path: where its files lie; only for sources that read files.
      **options: further keyword arguments of the source.

    Raises:
      InputError: for an unknown name or option; lists the known ones. For a path
        where none is read, or none where one is.

    Example:
      >>> len(load_source("digits"))
      1797
    """
    if name not in SOURCES:
        raise InputError(f"unknown source {name!r}; expected one of {sorted(SOURCES)}.")
    parameters = inspect.signature(SOURCES[name]).parameters.values()
    known = _options(name)
    if unknown := sorted(set(options) - known):
        raise InputError(
            f"unknown options {unknown} of the source {name!r}; it has {sorted(known)}."
        )
    of_path = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    if path is not None and not of_path:
        raise InputError(
            f"the source {name!r} reads no files; got path {path!r}. Set it to None."
        )
    if path is None and any(p.default is p.empty for p in of_path):
        raise InputError(
            f"the source {name!r} needs a path, of a file or a folder. Set data.path."
        )
    return SOURCES[name](*[path] * len(of_path), **options)


def has_option(name: str, option: str) -> bool:
    """Tell whether a source takes an option, such as ``on_error``.

    >>> has_option("csv", "on_error"), has_option("digits", "on_error")
    (True, False)
    """
    return name in SOURCES and option in _options(name)


def _options(name: str) -> set[str]:
    parameters = inspect.signature(SOURCES[name]).parameters.values()
    return {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
