# SPDX-License-Identifier: Apache-2.0
"""Splits of one source that never share an example."""

from collections.abc import Mapping
from typing import Any

import numpy as np

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


def _check_splits(splits: Mapping[str, Subset]) -> None:
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
