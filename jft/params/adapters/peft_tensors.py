# SPDX-License-Identifier: Apache-2.0
"""An adapter's numbers as PEFT keeps them: names, axes, and back."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jft.params.adapters.adapter import Adapter, Leaves, wide
from jft.params.adapters.ia3 import Ia3
from jft.params.adapters.lora import START, both_factors
from jft.params.adapters.peft_names import Names
from jft.params.layout import from_tensor, to_tensor
from jft.types import InputError

PREFIX = "base_model.model."

# our leaf -> the end of PEFT's name; all matrices have their axes the other way round
ENDINGS = {
    "lora_A": "lora_A.weight",
    "lora_B": "lora_B.weight",
    "lora_embedding_A": "lora_embedding_A",
    "lora_embedding_B": "lora_embedding_B",
    "lora_magnitude_vector": "lora_magnitude_vector",
    "ia3_l": "ia3_l",
}
_OWN = re.compile(rf"(.+)\.({'|'.join(map(re.escape, ENDINGS.values()))})")
_LEAF_OF = {ending: leaf for leaf, ending in ENDINGS.items()}


def to_tensors(
    adapter: Adapter,
    leaves_of: Mapping[str, Leaves],
    trained: Mapping[str, Any],
    names: Names,
) -> dict[str, np.ndarray]:
    """Name an adapter's tensors as PEFT does, with the axes that it gives them.

    Args:
      adapter: the method.
      leaves_of: its parameters, module -> leaves.
      trained: those of the base that are kept with it, by path.
      names: the model's.
    """
    tensors = {}
    for module, leaves in leaves_of.items():
        for name, array in _plain(leaves).items():
            key = f"{PREFIX}{names.modules[module]}.{ENDINGS[name]}"
            tensors[key] = _to_torch(adapter, module, name, array)
    for path, leaf in trained.items():
        key = f"{PREFIX}{names.tensors[path]}"
        if path.rpartition("/")[0] in leaves_of:  # PEFT puts its own module around it
            key = ".base_layer.".join(key.rsplit(".", 1))
        tensors[key] = to_tensor(path, np.asarray(leaf))
    return tensors


def from_tensors(
    tensors: Mapping[str, np.ndarray], names: Names
) -> tuple[dict[str, Leaves], dict[str, np.ndarray]]:
    """Undo ``to_tensors``.

    Returns:
      The adapters' parameters, module -> leaves, and those of the base, by path.

    Raises:
      InputError: for a tensor that is neither.
    """
    leaves_of: dict[str, Leaves] = {}
    trained = {}
    for key, tensor in tensors.items():
        name = key.removeprefix(PREFIX)
        if match := _OWN.fullmatch(name):
            module = names.module_path(match[1])
            leaf = _LEAF_OF[match[2]]
            leaves_of.setdefault(module, {})[leaf] = _from_torch(leaf, tensor)
            continue
        path = names.paths.get(name.replace(".base_layer.", "."))
        if path is None:
            raise InputError(
                f"the adapter holds the tensor {key!r}, which is neither an adapter's "
                f"({', '.join(sorted(ENDINGS.values()))}) nor a parameter of the model."
            )
        trained[path] = from_tensor(path, tensor)
    return leaves_of, trained


def _plain(leaves: Leaves) -> dict[str, np.ndarray]:
    """What PEFT knows: PiSSA becomes a plain LoRA of twice the rank."""
    arrays = {name: wide(leaf) for name, leaf in leaves.items()}
    if f"lora_A{START}" in arrays:
        arrays["lora_A"], arrays["lora_B"] = both_factors(arrays)
    return {name: x for name, x in arrays.items() if not name.endswith(START)}


def _to_torch(
    adapter: Adapter, module: str, name: str, array: np.ndarray
) -> np.ndarray:
    if name == "ia3_l":
        on_inputs = isinstance(adapter, Ia3) and adapter.on_inputs(module)
        return np.ascontiguousarray(array[None] if on_inputs else array[:, None])
    return np.ascontiguousarray(array.T)


def _from_torch(name: str, tensor: np.ndarray) -> np.ndarray:
    return tensor.reshape(-1) if name == "ia3_l" else np.ascontiguousarray(tensor.T)
