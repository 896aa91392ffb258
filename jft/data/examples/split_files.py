# SPDX-License-Identifier: Apache-2.0
"""Splits from files of their own, or from the parts that a data set names."""

import os
from collections.abc import Mapping
from itertools import combinations
from typing import Any

from jft.data.examples.splits import TRAIN, Size, split_source
from jft.data.sources.catalog import load_source
from jft.data.sources.slices import Sliced, check_slices
from jft.data.sources.source import Source, select_columns
from jft.types import InputError


def load_splits(
    name: str,
    path: str | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    columns: Mapping[str, Any] | None = None,
    split_paths: Mapping[str, str] | None = None,
    split_option: str | None = None,
    sizes: Mapping[str, Size],
    seed: int,
    per_class: bool = False,
    stratify: str | None = None,
    group: str | None = None,
) -> dict[str, Source]:
    """Load a data set as splits: one source divided, or a file or part a split.

    Args:
      name: a key of ``SOURCES``.
      path: of the source; with ``split_paths``, the folder that they lie in.
      options: further keyword arguments of the source.
      columns: ``{field: column}``, as `select_columns` takes them; None keeps the
        source's own. A column ``id``, and those that splits are drawn by, are kept
        besides.
      split_paths: ``{split: path}`` below ``path``; empty where all splits are drawn
        from one source.
      split_option: the option by which the source takes one of its own parts; the
        values of ``split_paths`` are then such parts, as ``"train[:80%]"`` of TFDS.
      sizes: of the splits that are drawn, from the source or, with ``split_paths``,
        from the file of ``train``; as `split_source` takes them. Empty: files whole.
      seed: of the draw.
      per_class: as `split_source`.
      stratify: likewise; a field, or a column of the source.
      group: likewise.

    Returns:
      ``{split: source}`` of raw rows, those that are drawn first.

    Raises:
      InputError: if a split other than ``train`` has both a path and a size, if
        ``train`` lacks what it needs, or if two splits read the same file or
        part; and as `load_source` and `split_source`.
    """
    options = dict(options or {})
    rule: dict[str, Any] = {
        "per_class": per_class,
        "stratify": stratify,
        "group": group,
    }
    drawn_by = [name for name in (stratify, group) if name is not None]

    parts: dict[str, Sliced] = {}  # by split; they may have been cut from one

    def load(key: str, place: str | None, *, is_drawn: bool) -> Source:
        part = {} if split_option is None else {split_option: place}
        where = place if split_option is None else path
        source = load_source(name, where, **options, **part)
        if isinstance(source, Sliced):
            parts[key] = source
        if columns is None:
            return source
        # by absent ones select_columns tells which there are
        known = {"id", *drawn_by} & set(source.columns)
        more = known | set(drawn_by if is_drawn else ())
        return select_columns(source, {k: k for k in sorted(more)} | dict(columns))

    if not split_paths:
        if split_option is not None:
            raise InputError(
                f"split_option is {split_option!r}, but split_paths names no part. "
                "Give a part of the data set for each split, or no split_option."
            )
        source = load(TRAIN, path, is_drawn=True)
        return dict(split_source(source, sizes, seed=seed, **rule))
    _check_sizes(split_paths, sizes)
    places = dict(split_paths)
    if split_option is None:
        places = {key: os.path.join(path or "", x) for key, x in places.items()}
    elif split_option in options:
        raise InputError(
            f"the option {split_option!r} of the source is set by split_paths, "
            f"{dict(split_paths)}; leave it out of the options."
        )
    _check_places(places)
    train = load(TRAIN, places.pop(TRAIN), is_drawn=bool(sizes))
    splits: dict[str, Source] = {TRAIN: train}
    if sizes:
        splits = dict(split_source(train, sizes, seed=seed, **rule))
    for key, place in places.items():
        splits[key] = load(key, place, is_drawn=False)
    check_slices(parts)
    return splits


def _check_sizes(paths: Mapping[str, str], sizes: Mapping[str, Size]) -> None:
    both = sorted((set(paths) & set(sizes)) - {TRAIN})
    if both:
        raise InputError(
            f"the splits {both} have both a path and a size (paths of "
            f"{sorted(paths)}, sizes of {sorted(sizes)}). Only 'train' may have "
            "both: its file is then divided. No sizes, {}, takes every file whole."
        )
    if TRAIN not in paths or (sizes and TRAIN not in sizes):
        raise InputError(
            f"there are paths of the splits {sorted(paths)} and sizes of "
            f"{sorted(sizes)}; 'train' needs a path and, where other splits are drawn "
            'from its file, a size too, such as "rest".'
        )


def _check_places(places: Mapping[str, str]) -> None:
    for one, other in combinations(places, 2):
        if os.path.realpath(places[one]) == os.path.realpath(places[other]):
            raise InputError(
                f"the splits {one!r} and {other!r} both read {places[one]}; a model "
                "must be tested on other examples. Give them a size instead of a path "
                "to draw them from the file of 'train'."
            )
