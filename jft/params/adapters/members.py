# SPDX-License-Identifier: Apache-2.0
"""One of several adapters over one base: what it has that the base has not."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jft.params.adapters.adapter import SUBTREE, Adapter, Leaves
from jft.params.adapters.tree import adapters_of, label_adapted, without_adapters
from jft.paths import flatten, map_with_path
from jft.types import FROZEN, Params


class Member(NamedTuple):
    """An adapter without its base."""

    adapter: Adapter
    leaves_of: dict[str, Leaves]  # module -> the adapter's parameters
    own: dict[str, Any]  # path -> a parameter of the base as it was trained beside

    def own_of(self, module: str) -> Leaves:
        """Its own parameters of one of the base's modules, by name."""
        parts = ((path.rpartition("/"), leaf) for path, leaf in self.own.items())
        return {name: leaf for (parent, _, name), leaf in parts if parent == module}


def member_of(params: Params, adapter: Adapter) -> Member:
    """Take an adapted model's parameters apart.

    Args:
      params: with the subtree ``adapters``.
      adapter: the method, which says what of the base moved with it.
    """
    base = without_adapters(params)
    movable = map_with_path(lambda path, leaf: "base", base)
    labels = flatten(label_adapted(params, movable, adapter))
    own = {path: x for path, x in flatten(base).items() if labels[path] != FROZEN}
    return Member(adapter, adapters_of(params), own)


def base_of(module: str, flat: Mapping[str, Any]) -> Leaves:
    """The base's parameters of a module, by name.

    Args:
      module: its path.
      flat: the base's parameters by path.
    """
    assert not module.startswith(f"{SUBTREE}/")
    return {
        path.rpartition("/")[2]: leaf
        for path, leaf in flat.items()
        if path.rpartition("/")[0] == module
    }
