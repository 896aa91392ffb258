# SPDX-License-Identifier: Apache-2.0
"""From nested dicts to the frozen ``Config``, once, with every fault named."""

import dataclasses
import difflib
import functools
import hashlib
import json
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from jft.config.convert import convert
from jft.config.durations import Duration, duration_keys, take_duration
from jft.config.schema import Config
from jft.types import InputError

# a resumed run may change these: none of them changes what is computed
MAY_CHANGE = ("checkpoint.on_corrupt", "data.cache", "data.num_workers")

S = TypeVar("S")


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


# the types of a section's fields; kept, since typing reads every annotation anew
_hints: Callable[[Any], Mapping[str, Any]] = functools.cache(
    functools.partial(typing.get_type_hints, include_extras=True)
)


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
        elif dataclasses.is_dataclass(kind) and isinstance(kind, type):
            fields[name] = _section(kind, values[name], where)
        else:
            fields[name] = convert(values[name], kind, where)
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
        # what a section's method or source takes is no key of the section
        close = [f"options.{unknown[0]}"] * ("options" in known) + close
        meant = " or ".join(prefix + key for key in close)
        hint = f" Did you mean {meant}?" if close else ""
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
