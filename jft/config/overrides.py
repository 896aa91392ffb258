# SPDX-License-Identifier: Apache-2.0
"""Single settings changed from the command line: ``--config.train.num_steps=100``."""

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from jft.config.durations import duration_keys
from jft.config.resolve import is_duration, section_class
from jft.types import InputError

PREFIX = "--config."


def split_overrides(argv: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Take the overrides out of a command line.

    A value is read as a Python literal (``1e-3``, ``None``, ``[[5, 0]]``) and, where
    it is none, as the text itself; whether it fits its key is for ``resolve`` to say.

    Args:
      argv: the command line, with ``--config.key=value`` or ``--config.key value``.

    Returns:
      ``({dotted key: value}, the rest of argv)``; a later override wins.

    Raises:
      InputError: if an override has no key or no value.

    Example:
      >>> split_overrides(["run", "--config.seed=3", "--config.data.path", "a/b"])
      ({'seed': 3, 'data.path': 'a/b'}, ['run'])
    """
    overrides: dict[str, Any] = {}
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        if not word.startswith(PREFIX):
            rest.append(word)
            continue
        key, given, text = word.removeprefix(PREFIX).partition("=")
        if not given:
            text = next(words, "")
        if not all(key.split(".")) or not text:
            raise InputError(
                f"the override {word!r} has no key or no value; "
                f"write {PREFIX}section.key=value."
            )
        overrides[key] = _literal(text)
    return overrides, rest


def read_overrides(words: Sequence[str]) -> dict[str, Any]:
    """Read ``key=value`` words, as a script's own flag has them, as `split_overrides`.

    >>> read_overrides(["optim.learning_rate=1e-3", "data.augment=None"])
    {'optim.learning_rate': 0.001, 'data.augment': None}
    """
    overrides, rest = split_overrides([PREFIX + word for word in words])
    assert not rest, rest
    return overrides


def apply_overrides(
    config: Mapping[str, Any], overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the config with some values replaced.

    A duration replaces the config's own whatever its unit: ``train.num_steps`` takes
    the place of ``train.num_epochs``.

    Args:
      config: nested dicts; left as it is.
      overrides: ``{dotted key: value}``; unknown keys are for ``resolve`` to refuse.

    Returns:
      New nested dicts.

    Raises:
      InputError: if a key leads through something that is no section.
    """
    changed: dict[str, Any] = _copy(config)
    for dotted, value in overrides.items():
        *path, name = dotted.split(".")
        section: Any = changed
        for key in path:
            section = section.setdefault(key, {})
            if not isinstance(section, dict):
                raise InputError(
                    f"the override {PREFIX}{dotted} has no place to go: {key} is "
                    f"{section!r}, not a section."
                )
        for key in _same_duration(path, name):
            if ".".join([*path, key]) not in overrides:
                section.pop(key, None)
        section[name] = value
    return changed


def _same_duration(path: Sequence[str], name: str) -> tuple[str, ...]:
    """Return the keys of all units if ``name`` is a duration of the section."""
    cls = section_class(path)
    family = name.rpartition("_")[0]
    if cls is not None and is_duration(cls, family) and name in duration_keys(family):
        return duration_keys(family)
    return ()


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return value
