# SPDX-License-Identifier: Apache-2.0
"""Adapters that a person names beside a base, and which of them answers what."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

import jft
from jft.adapter_folder import read_over
from jft.params import ADAPTER_FILES, adapters, find_folder
from jft.params.quantised import flatten_whole
from jft.types import InputError

# of an object: the adapter to ask; of an answer: the one asked
ADAPTER = "adapter"


def load_adapted(folder: str, given: Sequence[str]) -> jft.AdapterSet:
    """Load a base once for each head, and the adapters over it.

    Args:
      folder: the base.
      given: adapters, see `name_adapters`.
    """
    folders = {
        name: find_folder(where, files=ADAPTER_FILES)
        for name, where in name_adapters(given).items()
    }
    heads = {name: jft.adapter_head(where) for name, where in folders.items()}
    bases: list[tuple[dict[str, Any], jft.Pretrained]] = []  # with the head of each
    for head in heads.values():
        if head not in [known for known, _ in bases]:
            bases.append((head, jft.load(folder, **head, key=jax.random.key(0))))
    digest_over = _digests([base for _, base in bases])
    models = {}
    for name, where in folders.items():
        base = next(base for known, base in bases if known == heads[name])
        models[name] = read_over(where, base, digest_over(base))
    return jft.gather(bases[0][1], models)


def _digests(
    bases: Sequence[jft.Pretrained],
) -> Callable[[jft.Pretrained], adapters.BaseDigest]:
    """The digest of each of some bases that differ in heads alone; all hashed once.

    What a digest reads is of the same file in all of them: heads are left out of it.
    """
    each = {path: x for b in bases for path, x in flatten_whole(b.params).items()}
    digest = adapters.make_base_digest(each)

    def digest_over(base: jft.Pretrained) -> adapters.BaseDigest:
        absent = each.keys() - flatten_whole(base.params).keys()
        return lambda without: digest({*without, *absent})

    return digest_over


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
