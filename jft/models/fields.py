# SPDX-License-Identifier: Apache-2.0
"""Read config.json into a family's frozen dataclass, and refuse what it cannot hold."""

import types
import typing
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from jft.models.nonlinearities import ACTIVATIONS
from jft.types import InputError

T = TypeVar("T")

# its weights are packed integers, whatever the family
UNQUANTIZED: Mapping[str, tuple[None]] = {"quantization_config": (None,)}

_WORDS = {
    int: "a whole number",
    float: "a number of at least 0",
    bool: "true or false",
    str: "a text",
    types.NoneType: "null",
}


def read_fields(
    cls: type[T],
    config: Mapping[str, Any],
    *,
    choices: Mapping[str, Collection[Any]] | None = None,
    only: Mapping[str, Collection[Any]] | None = None,
) -> T:
    """Fill a config dataclass from config.json; absent fields keep their defaults.

    The dataclass's names, types and defaults are transformers' own. Whole numbers must
    be above 0 unless the default is 0 or None or the name ends in ``_id``; dropout
    rates lie below 1; ``num_labels`` is the number of names in ``id2label``. Fields
    named ``…act`` or ``…activation…`` must be keys of ``ACTIVATIONS``.

    Args:
      cls: the dataclass; supported types are int, float, bool, str, their unions with
        None, tuples (a pair may be given as one number) and mappings.
      config: config.json.
      choices: field -> the values it may have.
      only: fields outside the dataclass that would change the arithmetic -> the
        values that leave it as it is; absent is fine.

    Raises:
      InputError: names the field, its value and what was expected.

    >>> from jft.models.vit_config import ViTConfig
    >>> read_fields(ViTConfig, {"image_size": 384}).image_size
    (384, 384)
    """
    for name, allowed in {**UNQUANTIZED, **(only or {})}.items():
        if name in config and config[name] not in allowed:
            raise _unsupported(name, config[name], f"one of {list(allowed)}")
    hints = typing.get_type_hints(cls)
    defaults = {f.name: f.default for f in fields(cls)}  # type: ignore[arg-type]
    values = {
        name: _checked(name, config[name], hint, defaults[name])
        for name, hint in hints.items()
        if name in defaults and name in config
    }
    if "num_labels" in hints and config.get("id2label") is not None:
        if not config["id2label"]:
            raise InputError(
                "config.json: id2label is empty, so there is no class to predict; "
                "give the names of the classes."
            )
        values["num_labels"] = len(config["id2label"])
    for name, allowed in (choices or {}).items():
        if name in values and values[name] not in allowed:
            raise _unsupported(
                name, values[name], f"one of {sorted(map(str, allowed))}"
            )
    return cls(**values)


def resolve_names(
    config: Mapping[str, Any], names: Mapping[str, str]
) -> dict[str, Any]:
    """Read fields under transformers' general names, which overrule a family's own.

    >>> resolve_names({"d_model": 4, "hidden_size": 8}, {"hidden_size": "d_model"})
    {'d_model': 8}
    """
    kept = {name: value for name, value in config.items() if name not in names}
    return kept | {names[name]: config[name] for name in names if name in config}


def check_heads(name: str, width: int, heads_name: str, heads: int) -> None:
    """Refuse a width that does not divide into equal heads."""
    if width % heads:
        raise InputError(
            f"config.json: {name} is {width}, which does not divide into "
            f"{heads_name} = {heads} equal heads."
        )


def check_token_id(name: str, token_id: int | None, num_rows: int) -> None:
    """Refuse an id that has no row in the table; None is fine, -1 is the last row."""
    if token_id is not None and not -num_rows <= token_id < num_rows:
        raise InputError(
            f"config.json: {name} is {token_id}, but the table has {num_rows} rows."
        )


def _unsupported(name: str, value: Any, expected: str) -> InputError:
    return InputError(f"config.json: {name} is {value!r}; it must be {expected}.")


def _checked(name: str, value: Any, hint: Any, default: Any) -> Any:
    """Return the value in the hint's type, or say what is wrong with it."""
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    for option in options:
        found, converted = _convert(value, option)
        if found:
            _check_range(name, converted, default)
            return converted
    raise _unsupported(name, value, " or ".join(map(_word, options)))


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _word(option: Any) -> str:
    if _is_pair(option):
        return "a positive integer or two of them (height, width)"
    return _WORDS.get(option, "a list" if _is_tuple(option) else "a mapping")


def _is_tuple(option: Any) -> bool:
    return typing.get_origin(option) is tuple


def _is_pair(option: Any) -> bool:
    return _is_tuple(option) and Ellipsis not in typing.get_args(option)


def _convert(value: Any, option: Any) -> tuple[bool, Any]:
    """Return whether the value is of the type, and the value in that type."""
    if option is float:
        return type(value) in (int, float), float(value) if _is_number(value) else None
    if option in _WORDS:
        return type(value) is option, value
    if _is_tuple(option):
        if _is_pair(option) and type(value) is int:
            value = [value, value]
        item = typing.get_args(option)[0]
        if not isinstance(value, list | tuple) or (
            _is_pair(option) and len(value) != 2
        ):
            return False, None
        items = [_convert(part, item) for part in value]
        positive = not _is_pair(option) or all(type(v) is int and v > 0 for v in value)
        return all(ok for ok, _ in items) and positive, tuple(v for _, v in items)
    return isinstance(value, Mapping), value


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _check_range(name: str, value: Any, default: Any) -> None:
    if type(value) is int and not name.endswith("_id"):
        least = 0 if default in (0, None) else 1
        if value < least and not (default is not None and default < 0):
            raise _unsupported(name, value, f"a whole number of at least {least}")
    if type(value) is float and value < 0:
        raise _unsupported(name, value, "a number of at least 0")
    if type(value) is float and ("dropout" in name or "pdrop" in name) and value >= 1:
        raise InputError(f"config.json: {name} is {value}; it must be below 1.")
    is_activation = name.endswith("act") or "activation" in name
    if type(value) is str and is_activation and value not in ACTIVATIONS:
        raise _unsupported(name, value, f"one of {sorted(ACTIVATIONS)}")
