# SPDX-License-Identifier: Apache-2.0
"""Which tensor of a checkpoint is which parameter.

``checkpoint_keys`` says what an export calls its tensors; ``find_keys`` also finds
those that published checkpoints keep under other names, which the family tells.
"""

import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

from jft.models import Family
from jft.params.layout import to_key


class Found(NamedTuple):
    """Which tensor of a checkpoint is which parameter."""

    keys: dict[str, str]  # path -> key; parameters that are absent are not in it
    copies: dict[str, str]  # key -> the key that should hold the same numbers
    unused: tuple[str, ...]  # keys that the model has no place for, sorted


def checkpoint_keys(family: Family, task: str, paths: Iterable[str]) -> dict[str, str]:
    """Return ``{path: key}`` as transformers names the tensors of that task's class.

    >>> from jft.models import get_family
    >>> checkpoint_keys(get_family("bert"), "base", ["bert/pooler/dense/bias"])
    {'bert/pooler/dense/bias': 'pooler.dense.bias'}
    """
    prefix = family.checkpoint_prefix(task)
    keys = {}
    for path in paths:
        key, in_backbone = _bare_key(family, task, path)
        keys[path] = f"{prefix}.{key}" if in_backbone and prefix else key
    return keys


def find_keys(
    family: Family, task: str, paths: Iterable[str], keys: Collection[str]
) -> Found:
    """Find each parameter among a checkpoint's keys.

    The checkpoint may be of another task than the model: a bare backbone's keys lack
    the prefix that a model with a head has, and the other way round.

    Args:
      family: the model's.
      task: the model's.
      paths: the model's parameters.
      keys: the checkpoint's tensors.
    """
    places = {_bare_key(family, task, path)[0]: path for path in paths}
    prefixes = {family.base_prefix, *map(family.checkpoint_prefix, family.heads)} - {""}
    bare = {
        key: _without_prefix(_renamed(family, key), places, prefixes) for key in keys
    }
    found = {places[name]: key for key, name in bare.items() if name in places}
    tied = family.tied_words
    if task.endswith("_lm"):
        tied = (*family.tied_outputs, *tied)
    copies: dict[str, str] = {}
    unused = []
    for key, name in bare.items():
        is_buffer = any(re.fullmatch(buffer, key) for buffer in family.buffers)
        if name in places or is_buffer:
            continue
        originals = [first for copy, first in tied if re.fullmatch(copy, name)]
        targets = [p for p in places if any(re.fullmatch(o, p) for o in originals)]
        for target in targets:
            first = found.setdefault(places[target], key)
            if first != key:
                copies[key] = first
        if not targets:
            unused.append(key)
    return Found(found, copies, tuple(sorted(unused)))


def _bare_key(family: Family, task: str, path: str) -> tuple[str, bool]:
    """Return the key without the backbone's prefix, and whether it is of it."""
    key = to_key(path)
    if family.base_prefix:
        bare = key.removeprefix(f"{family.base_prefix}.")
        return bare, bare != key
    return key, not family.is_head(path, task)


def _without_prefix(
    key: str, places: Collection[str], prefixes: Collection[str]
) -> str:
    """Strip the backbone's prefix, unless the whole key is a name of the model's."""
    if key in places:
        return key
    for prefix in prefixes:
        if key.startswith(f"{prefix}."):
            return key.removeprefix(f"{prefix}.")
    return key


def _renamed(family: Family, key: str) -> str:
    for pattern, replacement in family.old_keys:
        key = re.sub(rf"^(?:{pattern})$", replacement, key)
    return key
