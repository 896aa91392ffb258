# SPDX-License-Identifier: Apache-2.0
"""Adapters that a person names beside a base, and which of them answers what."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

import jft
from jft.types import InputError

# of an object: the adapter to ask; of an answer: the one asked
ADAPTER = "adapter"


def load_adapted(folder: str, given: Sequence[str]) -> jft.AdapterSet:
    """Load a base once for each head, and the adapters over it.

    Args:
      folder: the base.
      given: adapters, see `name_adapters`.
    """
    models: dict[str, jft.Pretrained] = {}
    bases: list[tuple[dict[str, Any], jft.Pretrained]] = []  # with the head of each
    for name, where in name_adapters(given).items():
        head = jft.adapter_head(where)
        if head not in [known for known, _ in bases]:
            bases.append((head, jft.load(folder, **head, key=jax.random.key(0))))
        base = next(base for known, base in bases if known == head)
        models[name] = jft.load_adapter(where, base)
    return jft.gather(bases[0][1], models)


def name_adapters(given: Sequence[str]) -> dict[str, str]:
    """Each adapter's folder or Hub id, by its name.

    >>> name_adapters(["law=runs/a/adapter", "runs/news"])
    {'law': 'runs/a/adapter', 'news': 'runs/news'}
    """
    named: dict[str, str] = {}
    for one in given:
        name, equals, where = one.partition("=")
        if not equals or Path(one).is_dir():  # a folder may have a "=" in its name
            name, where = Path(one).name, one
        if not name or not where or name in named:
            raise InputError(
                f"--adapter={one} was given"
                + (f", and {name!r} names another already" * (name in named))
                + "; give --adapter=folder or --adapter=name=folder, with names that "
                "differ."
            )
        named[name] = where
    return named


def choose_adapters(line: Any, names: Sequence[str]) -> list[str]:
    """The adapters to ask about a line: the one that an object names, else all."""
    if not isinstance(line, Mapping) or ADAPTER not in line:
        return list(names)
    if line[ADAPTER] not in names:
        raise InputError(
            f"an object to ask about names the adapter {line[ADAPTER]!r}; given with "
            f"--adapter are {sorted(names)}."
        )
    return [line[ADAPTER]]
