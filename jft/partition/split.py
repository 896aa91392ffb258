# SPDX-License-Identifier: Apache-2.0
"""Split a tree by label into parts with ``None`` holes, and put it together again."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jft import paths
from jft.partition.labels import is_trainable, label_of_paths
from jft.types import ParamLabels, Params


class Partition(NamedTuple):
    """Two trees of one structure; each leaf is in one and ``None`` in the other."""

    trainable: Params
    frozen: Params


def split(params: Params, param_labels: ParamLabels) -> Partition:
    """Split by label: what moves, and what is ``"frozen"``.

    Args:
      params: any pytree.
      param_labels: a tree of strings of the same structure.

    Returns:
      The two parts; ``combine(*split(params, labels))`` holds the same leaves.

    Raises:
      InputError: if the labels do not fit the parameters; see `label_of_paths`.

    Example:
      >>> split({"a": 1, "b": 2}, {"a": "head", "b": "frozen"})
      Partition(trainable={'a': 1, 'b': None}, frozen={'a': None, 'b': 2})
    """
    labels = label_of_paths(params, param_labels)
    return Partition(*split_by(params, lambda path: is_trainable(labels[path])))


def split_by(tree: Params, predicate: Callable[[str], bool]) -> tuple[Params, Params]:
    """Split by a predicate on the path: ``(where true, where false)``.

    >>> split_by({"a": 1, "b": 2}, lambda path: path == "a")
    ({'a': 1, 'b': None}, {'a': None, 'b': 2})
    """
    chosen = paths.map_with_path(lambda p, x: x if predicate(p) else None, tree)
    rest = paths.map_with_path(lambda p, x: None if predicate(p) else x, tree)
    return chosen, rest


def combine(*parts: Params) -> Params:
    """Fill each hole from the first part that has a leaf there.

    >>> combine({"a": 1, "b": None}, {"a": None, "b": 2})
    {'a': 1, 'b': 2}
    """

    def first(*leaves: Any) -> Any:
        return next((leaf for leaf in leaves if leaf is not None), None)

    return jax.tree.map(first, *parts, is_leaf=lambda leaf: leaf is None)
