# SPDX-License-Identifier: Apache-2.0
"""Plain values as annotations have them, or one sentence about what does not fit."""

import math
import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from jft.types import InputError

_UNIONS = (Union, types.UnionType)
_SCALARS: dict[Any, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a string",
    types.NoneType: "None",
}


def converts(kind: Any) -> bool:
    """Return whether `convert` knows an annotation.

    It knows scalars, ``Literal``, tuples, mappings with string keys, and these within
    ``Annotated`` limits or unions.

    >>> converts(tuple[str, ...] | None), converts(list[str])
    (True, False)
    """
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return converts(args[0])
    if origin in _UNIONS or origin is tuple:
        return all(converts(part) for part in args if part is not ...)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return args[0] is str and converts(args[1])
    return origin is Literal or kind in _SCALARS


def convert(value: Any, kind: Any, path: str) -> Any:
    """Return a value as its annotation has it, such as a list as a tuple.

    Args:
      value: plain, as a file or a command line gives it.
      kind: an annotation, see `converts`.
      path: of the value, for the message.

    Raises:
      InputError: if it is of another type, or lies out of range.

    Example:
      >>> convert([["head", 2]], tuple[tuple[str, float], ...], "optim.multipliers")
      (('head', 2.0),)
    """
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        if _fits(value, args[0]) and args[1].holds(value):
            return convert(value, args[0], path)
    elif origin in _UNIONS:
        lists = [option for option in args if get_origin(option) is tuple]
        if len(lists) == 1 and isinstance(value, list | tuple):
            return convert(value, lists[0], path)  # its message names the item
        for option in args:
            try:
                return convert(value, option, path)
            except InputError:
                continue
    elif origin is Literal and value in args:
        return value
    elif origin is tuple and isinstance(value, list | tuple):
        kinds = [args[0]] * len(value) if args[-1] is ... else list(args)
        if len(kinds) == len(value):
            rows = enumerate(zip(value, kinds, strict=True))
            return tuple(convert(x, k, f"{path}[{i}]") for i, (x, k) in rows)
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            # sorted, so that equal configs are also equal in order
            items = sorted(value.items())
            return {k: convert(x, args[1], f"{path}.{k}") for k, x in items}
    elif _fits(value, kind):
        return float(value) if kind is float else value
    raise InputError(
        f"{path} is {value!r} ({type(value).__name__}); expected {_describe(kind)}."
    )


def _fits(value: Any, kind: Any) -> bool:
    if kind is Any:
        return True
    if kind is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return kind in _SCALARS and isinstance(value, kind)


def _describe(kind: Any) -> str:
    """Return the annotation in words."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return " ".join([_describe(args[0]), *map(str, args[1:])])
    if origin in _UNIONS:
        return " or ".join(_describe(option) for option in args)
    if origin is Literal:
        return f"one of {', '.join(map(repr, args))}"
    if origin is tuple:
        if args[-1] is ...:
            return f"a list, each item {_describe(args[0])}"
        return f"({', '.join(_describe(option) for option in args)})"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"a dict with string keys, each value {_describe(args[1])}"
    return _SCALARS.get(kind, str(kind))
