# SPDX-License-Identifier: Apache-2.0
"""From nested dicts to the frozen ``Config``, once, with every fault named."""

import dataclasses
import difflib
import functools
import hashlib
import json
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from jft.config.durations import Duration, duration_keys, take_duration
from jft.config.schema import Config
from jft.types import InputError

# a resumed run may change these: none of them changes what is computed
MAY_CHANGE = ("checkpoint.on_corrupt", "data.cache", "data.num_workers")

S = TypeVar("S")

_SCALARS: dict[Any, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a string",
    types.NoneType: "None",
}


def resolve(config: Any) -> Config:
    """Check a config and freeze it.

    Args:
      config: nested dicts or an ``ml_collections.ConfigDict`` with every key of
        ``jft.config.schema``.

    Returns:
      The frozen config; whole numbers given for floats are floats in it.

    Raises:
      InputError: if a key is unknown or missing, or a value has the wrong type or
        lies out of range; the message names the key as ``section.key``.
    """
    values = config.to_dict() if hasattr(config, "to_dict") else config
    return _section(Config, values, "")


def to_dict(config: Any) -> dict[str, Any]:
    """Return the nested dicts that ``resolve`` turns into this config."""
    plain: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, Duration):
            plain[f"{field.name}_{value.unit}"] = value.amount
        elif is_duration(type(config), field.name):
            plain[f"{field.name}_steps"] = None
        else:
            is_section = dataclasses.is_dataclass(value)
            plain[field.name] = to_dict(value) if is_section else _plain(value)
    return plain


def to_json(config: Config) -> str:
    """Return the config as JSON text, sections in stage order."""
    return json.dumps(to_dict(config), indent=2) + "\n"


def from_json(text: str) -> Config:
    """Read what ``to_json`` wrote.

    Raises:
      InputError: if the text is no JSON or no complete config.
    """
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"the config is no JSON: {error}. It was expected to be a config.json as "
            "jft writes it into a workdir."
        ) from error
    return resolve(values)


def config_digest(config: Config) -> str:
    """Return a hexadecimal digest, equal for configs that differ in MAY_CHANGE only."""
    leaves = _leaves(to_dict(config)).items()
    text = json.dumps({k: v for k, v in leaves if k not in MAY_CHANGE}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(ours: Config, theirs: Config) -> dict[str, tuple[Any, Any]]:
    """Return ``{key: (our value, their value)}`` of the keys that differ.

    A key that only one side has, such as another unit of a duration, counts as None
    on the other.
    """
    a, b = _leaves(to_dict(ours)), _leaves(to_dict(theirs))
    keys = dict.fromkeys([*a, *b])
    return {k: (a.get(k), b.get(k)) for k in keys if a.get(k) != b.get(k)}


def section_class(path: Iterable[str]) -> type | None:
    """Return the dataclass of the section at ``path``, or None if there is none."""
    cls: Any = Config
    for name in path:
        cls = _hints(cls).get(name) if dataclasses.is_dataclass(cls) else None
    return cls if dataclasses.is_dataclass(cls) and isinstance(cls, type) else None


def is_duration(cls: type, name: str) -> bool:
    """Return whether the field ``name`` of the section ``cls`` is a duration."""
    hint = _hints(cls).get(name)
    return Duration in (hint, *typing.get_args(hint))


def _hints(cls: Any) -> Mapping[str, Any]:
    """The types of a section's fields."""
    return _read_hints(cls)


@functools.cache  # typing reads every annotation anew
def _read_hints(cls: Any) -> Mapping[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def _section(cls: type[S], values: Any, path: str) -> S:
    if not isinstance(values, Mapping):
        raise InputError(
            f"{path or 'the config'} is {values!r}; expected a section with the keys "
            f"{', '.join(_known_keys(cls))}."
        )
    _check_keys(cls, values, path)
    fields: dict[str, Any] = {}
    for name, kind in _hints(cls).items():
        where = f"{path}.{name}" if path else name
        if is_duration(cls, name):
            fields[name] = take_duration(where, values, required=kind is Duration)
        else:
            fields[name] = _convert(values[name], kind, where)
    return cls(**fields)


def _known_keys(cls: type) -> list[str]:
    known: list[str] = []
    for name in _hints(cls):
        known += duration_keys(name) if is_duration(cls, name) else [name]
    return known


def _check_keys(cls: type, values: Mapping[str, Any], path: str) -> None:
    known = _known_keys(cls)
    prefix = f"{path}." if path else ""
    unknown = sorted(str(key) for key in values if key not in known)
    if unknown:
        close = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f" Did you mean {prefix}{close[0]}?" if close else ""
        raise InputError(
            f"unknown config key {', '.join(prefix + key for key in unknown)}.{hint} "
            f"Known keys of {path or 'a config'}: {', '.join(sorted(known))}."
        )
    names = [name for name in _hints(cls) if not is_duration(cls, name)]
    missing = sorted(prefix + name for name in names if name not in values)
    if missing:
        raise InputError(
            f"missing config key {', '.join(missing)}. Every key must be set; start "
            "from base_config() of configs/common.py, which sets them all."
        )


def _convert(value: Any, kind: Any, path: str) -> Any:
    """Return ``value`` as ``kind``, a type annotation, or raise for ``path``."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _section(kind, value, path)
    if origin is Annotated:
        if _fits(value, args[0]) and args[1].holds(value):
            return _convert(value, args[0], path)
    elif origin in (typing.Union, types.UnionType):
        lists = [option for option in args if typing.get_origin(option) is tuple]
        if len(lists) == 1 and isinstance(value, list | tuple):
            return _convert(value, lists[0], path)  # its message names the item
        for option in args:
            try:
                return _convert(value, option, path)
            except InputError:
                continue
    elif origin is Literal and value in args:
        return value
    elif origin is tuple and isinstance(value, list | tuple):
        kinds = [args[0]] * len(value) if args[-1] is ... else list(args)
        if len(kinds) == len(value):
            rows = enumerate(zip(value, kinds, strict=True))
            return tuple(_convert(x, k, f"{path}[{i}]") for i, (x, k) in rows)
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            # sorted, so that equal configs are also equal in order
            items = sorted(value.items())
            return {k: _convert(x, args[1], f"{path}.{k}") for k, x in items}
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
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return " ".join([_describe(args[0]), *map(str, args[1:])])
    if origin in (typing.Union, types.UnionType):
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


def _plain(value: Any) -> Any:
    """Return tuples as lists and mappings as dicts, as JSON has them."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return (
        [_plain(item) for item in value] if isinstance(value, list | tuple) else value
    )


def _leaves(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _leaves(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
