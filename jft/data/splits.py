# SPDX-License-Identifier: Apache-2.0
"""Splits that never share an example: drawn from one source, or files of their own."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from jft.data.catalog import load_source
from jft.data.sources import Source, digest
from jft.types import InputError

Size = int | float | str  # a count, a fraction, or "rest"


class Subset:
    """The examples of ``source`` at ``indices``, in their order."""

    def __init__(self, source: Source, indices: np.ndarray) -> None:
        self.source = source
        self.indices = np.asarray(indices, np.int64)
        self.class_names = source.class_names
        self.targets = source.targets[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.source[int(self.indices[index])]

    def __repr__(self) -> str:
        return f"Subset({self.source!r}, {len(self)}, {digest([self.indices])})"


def split_source(
    source: Source, sizes: Mapping[str, Size], *, seed: int, per_class: bool = False
) -> dict[str, Subset]:
    """Divide a source by rule; the same arguments give the same splits.

    Args:
      source: what to divide.
      sizes: ``{split: size}``. A whole number counts examples, a float from 0 to 1 is
        a fraction, and ``"rest"``, at most once, is what the others leave.
      seed: of the draw.
      per_class: counts and fractions are of each class, not of the whole.

    Returns:
      ``{split: Subset}`` in the order of ``sizes``, each in the source's order.

    Raises:
      InputError: if a size is none of these, if they sum to more than there is, if a
        split is empty, or if a class is absent from the split ``train``.

    Example:
      >>> from jft.data.sources import ArraySource
      >>> source = ArraySource({"targets": np.arange(10) % 2}, class_names=("a", "b"))
      >>> sizes = {"train": 2, "test": "rest"}
      >>> {k: len(v) for k, v in
      ...  split_source(source, sizes, seed=0, per_class=True).items()}
      {'train': 4, 'test': 6}
    """
    _check_sizes(sizes)
    generator = np.random.default_rng(seed)
    pools = {"the source": np.arange(len(source))}
    if per_class:
        pools = {
            f"class {name!r}": np.flatnonzero(source.targets == target)
            for target, name in enumerate(source.class_names)
        }
    chosen: dict[str, list[np.ndarray]] = {name: [] for name in sizes}
    for pool_name, pool in pools.items():
        counts = _counts(sizes, len(pool), pool_name)
        borders = np.cumsum(list(counts.values()))
        parts = np.split(generator.permutation(pool), borders)
        for name, part in zip(counts, parts[:-1], strict=True):
            chosen[name].append(part)
    splits = {
        name: Subset(source, np.sort(np.concatenate(parts)))
        for name, parts in chosen.items()
    }
    _check_splits(splits)
    return splits


def load_splits(
    name: str,
    path: str | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    split_paths: Mapping[str, str] | None = None,
    sizes: Mapping[str, Size],
    seed: int,
    per_class: bool = False,
) -> dict[str, Source]:
    """Load a data set as splits: one source divided, or a file or folder a split.

    The classes are those of the split ``train``; the other files must have the same.

    Args:
      name: a key of ``SOURCES``.
      path: of the source; with ``split_paths``, the folder that they lie in.
      options: further keyword arguments of the source.
      split_paths: ``{split: path}`` below ``path``; empty where all splits are drawn
        from one source.
      sizes: of the splits that are drawn, from the source or, with ``split_paths``,
        from the file of ``train``; as `split_source` takes them. Empty: files whole.
      seed: of the draw.
      per_class: as `split_source`.

    Returns:
      ``{split: source}``, those that are drawn first.

    Raises:
      InputError: if a split other than ``train`` has both a path and a size, if
        ``train`` lacks what it needs, or if another split reads its file; and as
        `load_source` and `split_source`.
    """
    options = dict(options or {})
    if not split_paths:
        source = load_source(name, path, **options)
        return dict(split_source(source, sizes, seed=seed, per_class=per_class))
    files = {key: os.path.join(path or "", file) for key, file in split_paths.items()}
    _check_files(files, sizes)
    train = load_source(name, files.pop("train"), **options)
    splits: dict[str, Source] = {"train": train}
    if sizes:
        splits = dict(split_source(train, sizes, seed=seed, per_class=per_class))
    options["class_names"] = train.class_names
    splits |= {key: load_source(name, file, **options) for key, file in files.items()}
    _check_splits(splits)
    return splits


def _check_files(files: Mapping[str, str], sizes: Mapping[str, Size]) -> None:
    both = sorted((set(files) & set(sizes)) - {"train"})
    if both:
        raise InputError(
            f"the splits {both} have both a path and a size (paths of "
            f"{sorted(files)}, sizes of {sorted(sizes)}). Only 'train' may have "
            "both: its file is then divided. No sizes, {}, takes every file whole."
        )
    if "train" not in files or (sizes and "train" not in sizes):
        raise InputError(
            f"there are paths of the splits {sorted(files)} and sizes of "
            f"{sorted(sizes)}; 'train' needs a path and, where other splits are drawn "
            'from its file, a size too, such as "rest".'
        )
    read = {name: os.path.realpath(file) for name, file in files.items()}
    if shared := sorted(k for k in read if k != "train" and read[k] == read["train"]):
        raise InputError(
            f"the splits {shared} read the file of 'train', {files['train']}; a model "
            "must be tested on other examples. Give them a size instead of a path to "
            "draw them from that file."
        )


def _check_sizes(sizes: Mapping[str, Size]) -> None:
    for name, size in sizes.items():
        whole = isinstance(size, int) and not isinstance(size, bool) and size > 0
        if not (whole or size == "rest" or (isinstance(size, float) and 0 < size <= 1)):
            raise InputError(
                f"split {name!r} has size {size!r}; expected a whole number above 0, "
                'a fraction above 0 and at most 1, or "rest".'
            )
    if sum(size == "rest" for size in sizes.values()) > 1:
        raise InputError(
            f'more than one split is "rest": {dict(sizes)}. Give all but one a size.'
        )


def _counts(sizes: Mapping[str, Size], total: int, pool: str) -> dict[str, int]:
    """Examples a split; fractions are rounded on their running sum, so all are used."""
    counts: dict[str, int] = {}
    running = 0.0
    for name, size in sizes.items():
        if isinstance(size, float):
            before, running = running, running + size
            counts[name] = round(running * total) - round(before * total)
        else:
            counts[name] = 0 if isinstance(size, str) else size
    left = total - sum(counts.values())
    if left < 0:
        raise InputError(
            f"the splits {dict(sizes)} ask for {total - left} examples of {pool}, "
            f"which has {total}. Make them smaller."
        )
    return {name: left if sizes[name] == "rest" else n for name, n in counts.items()}


def _check_splits(splits: Mapping[str, Source]) -> None:
    for name, split in splits.items():
        if not len(split):
            raise InputError(
                f"the split {name!r} is empty; give it a larger size or the others "
                "smaller ones."
            )
    if "train" in splits:
        train = splits["train"]
        present = set(train.targets.tolist())
        absent = [n for i, n in enumerate(train.class_names) if i not in present]
        if absent:
            raise InputError(
                f"the split 'train' has no example of the classes {sorted(absent)}; "
                "make it larger, or count per class."
            )
