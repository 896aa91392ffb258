# SPDX-License-Identifier: Apache-2.0
"""An adapter's numbers as PEFT keeps them: names, axes, and back."""

import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from jft.params.adapters.adapter import Adapter, Leaves, Stored, torch_axes, wide
from jft.params.adapters.peft_names import Names
from jft.params.layout import from_tensor, from_torch, to_tensor
from jft.types import InputError

PREFIX = "base_model.model."

TUNED = "ln_tuning_layers"  # ends PEFT's name of a norm that it tunes


def to_tensors(
    adapter: Adapter,
    leaves_of: Mapping[str, Leaves],
    shared: Leaves,
    trained: Mapping[str, Any],
    names: Names,
    *,
    tuned: Collection[str] = (),
) -> dict[str, np.ndarray]:
    """Name an adapter's tensors as PEFT does, with the axes that it gives them.

    Args:
      adapter: the method.
      leaves_of: its parameters, module -> leaves.
      shared: what all modules share.
      trained: those of the base that are kept with it, by path.
      names: the model's.
      tuned: the norms that a method which tunes norms lets move.
    """
    tensors = {
        adapter.shared_names[name]: torch_axes(wide(leaf))
        for name, leaf in shared.items()
    }
    for module, leaves in leaves_of.items():
        for name, array in adapter.to_torch(module, leaves).items():
            key = f"{PREFIX}{names.modules[module]}.{adapter.endings[name]}"
            tensors[key] = array
    for path, leaf in trained.items():
        key = f"{PREFIX}{names.tensors[path]}"
        module = path.rpartition("/")[0]
        if module in leaves_of:  # PEFT puts its own module around it
            key = ".base_layer.".join(key.rsplit(".", 1))
        elif module in tuned:  # and beside the norm that was
            key = f".{TUNED}.".join(key.rsplit(".", 1))
        tensors[key] = to_tensor(path, np.asarray(leaf), names.family)
    return tensors


def from_tensors(
    method: type[Adapter], tensors: Mapping[str, np.ndarray], names: Names
) -> Stored:
    """Undo ``to_tensors``.

    Raises:
      InputError: for a tensor that is neither an adapter's nor the model's.
    """
    stored = Stored({}, {}, {})
    leaf_of = {ending: leaf for leaf, ending in method.endings.items()}
    own = re.compile(rf"(.+)\.({'|'.join(map(re.escape, leaf_of))})")
    shared_of = {name: leaf for leaf, name in method.shared_names.items()}
    for key, tensor in tensors.items():
        if key in shared_of:
            stored.shared[shared_of[key]] = from_torch(tensor)
            continue
        name = key.removeprefix(PREFIX)
        if match := own.fullmatch(name):
            module, leaf = names.module_path(match[1]), leaf_of[match[2]]
            array = method.from_torch(leaf, tensor)
            stored.leaves_of.setdefault(module, {})[leaf] = array
            continue
        path = names.paths.get(re.sub(rf"\.(base_layer|{TUNED})\.", ".", name))
        if path is None:
            raise InputError(
                f"the adapter holds the tensor {key!r}, which is neither of a "
                f"{method.peft_type} ({', '.join(sorted(leaf_of))}) nor a parameter of "
                "the model."
            )
        stored.trained[path] = from_tensor(path, tensor, names.family)
    return stored
