# SPDX-License-Identifier: Apache-2.0
"""Calls of jft are checked against their annotations, cheaply where these are plain.

jaxtyping gives each call a scope, in which an axis of one name has one size, and for it
binds the arguments anew. Most functions name no axis: beartype alone checks them alike,
in a thirtieth of the time.
"""

import dataclasses
import functools
import inspect
import typing
from typing import Any

import jaxtyping
from beartype.roar import BeartypeDecorHintException

jaxtyped = jaxtyping.jaxtyped


def checked(fn: Any = None, **options: Any) -> Any:
    """Decorate a function or class in place of `jaxtyping.jaxtyped`."""
    if fn is None:
        return functools.partial(checked, **options)
    of_init = dataclasses.is_dataclass(fn)
    function = fn.__init__ if of_init else fn
    if inspect.isclass(function):
        return fn
    if any(map(names_axes, function.__annotations__.values())):
        return jaxtyped(fn, **options)
    try:
        cheap = options["typechecker"](function)
    except BeartypeDecorHintException:  # jaxtyping leaves out what it cannot read
        return jaxtyped(fn, **options)
    if not of_init:
        return cheap
    fn.__init__ = cheap
    return fn


def names_axes(hint: Any) -> bool:
    """Whether jaxtyping's types are in it, or, where it is yet to be read, may be."""
    if isinstance(hint, list | tuple):
        return any(map(names_axes, hint))
    if isinstance(hint, str | typing.ForwardRef):
        return True
    own = getattr(hint, "__module__", "").startswith("jaxtyping")
    return own or names_axes(typing.get_args(hint))
