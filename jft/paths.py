# SPDX-License-Identifier: Apache-2.0
"""The only key-path code and the only rule matcher of the package.

A path is the "/"-joined sequence of keys from the root of a pytree to a leaf, for
example ``vit/encoder/layer/3/attention/attention/query/kernel``.
"""

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import jax

from jft.types import InputError

T = TypeVar("T")
Rules = Sequence[tuple[str, T]]


def path_str(key_path: Sequence[Any]) -> str:
    """Join a jax key path to a string.

    >>> path_str((jax.tree_util.DictKey("a"), jax.tree_util.SequenceKey(0)))
    'a/0'
    """
    return jax.tree_util.keystr(tuple(key_path), simple=True, separator="/")


def flatten(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> dict[str, Any]:
    """Flatten a pytree to ``{path: leaf}`` in tree order; ``None`` is no leaf.

    What ``is_leaf`` holds for is one, as in ``jax.tree.leaves``. Keys, indices and
    attributes (of dataclasses, of modules) give the same paths, and what an nnx
    variable holds has the path of the variable.

    >>> flatten({"a": {"b": 1}, "c": None})
    {'a/b': 1}
    """
    return dict(_named(tree, is_leaf))


def _named(
    tree: Any, is_leaf: Callable[[Any], bool] | None = None
) -> list[tuple[str, Any]]:
    """Every leaf with its path, in tree order."""

    def stops(node: Any) -> bool:
        return _is_variable(node) or (is_leaf is not None and is_leaf(node))

    named: list[tuple[str, Any]] = []
    for key_path, node in jax.tree_util.tree_leaves_with_path(tree, is_leaf=stops):
        if _is_variable(node):  # its own key, "value", says nothing
            inside = jax.tree_util.tree_leaves_with_path(node, is_leaf=is_leaf)
            named += [(path_str((*key_path, *keys[1:])), x) for keys, x in inside]
        else:
            named.append((path_str(key_path), node))
    return named


def _is_variable(node: Any) -> bool:
    """Whether a node is a variable of nnx, which only who has nnx can have."""
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(node, nnx.Variable)


def unflatten(flat: Mapping[str, T]) -> dict[str, Any]:
    """Build nested dicts from ``{path: leaf}``.

    >>> unflatten({"a/b": 1, "a/c": 2})
    {'a': {'b': 1, 'c': 2}}
    """
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        node = tree
        for key in parents:
            node = node.setdefault(key, {})
        node[name] = leaf
    return tree


def with_leaves(tree: Any, leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The tree with these leaves in the places of its own, or beside them.

    >>> with_leaves({"a": 1, "b": {"c": 2}}, {"b/c": 3, "b/d": 4})
    {'a': 1, 'b': {'c': 3, 'd': 4}}
    """
    return unflatten({**flatten(tree), **leaves})


def map_with_path(fn: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """``jax.tree.map`` whose function gets the path first.

    >>> map_with_path(lambda path, x: (path, x), {"a": 1})
    {'a': ('a', 1)}
    """
    names = iter([path for path, _ in _named(tree)])
    return jax.tree.map(lambda *leaves: fn(next(names), *leaves), tree, *rest)


def map_where(fn: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """``map_with_path`` over the paths that all trees have; other leaves stay.

    The others may be of another structure, or have holes.

    >>> map_where(lambda path, x, y: x + y, {"a": 1, "b": 2}, {"a": 10, "b": None})
    {'a': 11, 'b': 2}
    """
    flat = [flatten(other) for other in others]

    def at(path: str, leaf: Any) -> Any:
        if any(path not in leaves for leaves in flat):
            return leaf
        return fn(path, leaf, *(leaves[path] for leaves in flat))

    return map_with_path(at, tree)


def match_rules(rules: Rules[T], paths: Iterable[str]) -> dict[str, T]:
    """Give each path the value of the first rule that matches all of it.

    Args:
      rules: ordered ``(regex, value)`` pairs; a regex must match the full path.
      paths: the paths to cover.

    Returns:
      ``{path: value}`` in the order of ``paths``.

    Raises:
      InputError: if a path matches no rule, or a rule is the first match of no
        path; the message lists both, sorted.

    Example:
      >>> match_rules([("head/.*", "head"), (".*", "frozen")], ["head/w", "body/w"])
      {'head/w': 'head', 'body/w': 'frozen'}
    """
    compiled = [_compile(pattern) for pattern, _ in rules]
    winners: set[int] = set()
    matched: dict[str, T] = {}
    missing: list[str] = []
    for path in paths:
        index = next((i for i, p in enumerate(compiled) if p.fullmatch(path)), None)
        if index is None:
            missing.append(path)
        else:
            winners.add(index)
            matched[path] = rules[index][1]
    unused = [pattern for i, (pattern, _) in enumerate(rules) if i not in winners]
    if missing or unused:
        example = next(iter([*missing, *matched]), "")
        raise InputError(
            "rules and paths do not fit: every path needs a rule and every rule must "
            "be the first match of a path. "
            f"Paths that no rule matches: {shorten(sorted(missing))}. "
            f"Rules that win no path: {sorted(unused)}; paths begin with "
            f"{sorted({path.partition('/')[0] for path in [*matched, *missing]})}, and "
            f"one of them is {example!r}. "
            'Rules match the whole path, first match wins; end with (".*", …) to '
            "cover the rest."
        )
    return matched


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"rule {pattern!r} is no regular expression: {error}. Rules are Python "
            "regular expressions that match a whole parameter path."
        ) from error


def shorten(names: Sequence[str], most: int = 5) -> list[str]:
    """The first of many names, for a message, and how many more there are.

    >>> shorten("abcdefg")
    ['a', 'b', 'c', 'd', 'e', '… and 2 more']
    """
    rest = len(names) - most
    return [*names[:most], f"… and {rest} more"] if rest > 0 else list(names)
