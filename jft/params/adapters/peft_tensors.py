# SPDX-License-Identifier: Apache-2.0
"""An adapter's numbers as PEFT keeps them: names, axes, and back."""

import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from jft.params.adapters.adapter import Adapter, Leaves, wide
from jft.params.adapters.ia3 import Ia3
from jft.params.adapters.lora import START, both_factors
from jft.params.adapters.peft_names import Names
from jft.params.layout import from_tensor, from_torch, to_tensor, to_torch
from jft.types import InputError

PREFIX = "base_model.model."

TUNED = "ln_tuning_layers"  # ends PEFT's name of a norm that it tunes

# our leaf -> the end of PEFT's name; all matrices have their axes the other way round
ENDINGS = {
    "lora_A": "lora_A.weight",
    "lora_B": "lora_B.weight",
    "lora_embedding_A": "lora_embedding_A",
    "lora_embedding_B": "lora_embedding_B",
    "lora_magnitude_vector": "lora_magnitude_vector",
    "ia3_l": "ia3_l",
    "vera_lambda_b": "vera_lambda_b",
    "vera_lambda_d": "vera_lambda_d",
    # PEFT has no bottlenecks
    "bottleneck_down": "bottleneck_down.weight",
    "bottleneck_down_bias": "bottleneck_down.bias",
    "bottleneck_up": "bottleneck_up.weight",
    "bottleneck_up_bias": "bottleneck_up.bias",
}
# what all modules share: our leaf -> PEFT's whole name
SHARED = {"vera_A": "base_model.vera_A", "vera_B": "base_model.vera_B"}
_OWN = re.compile(rf"(.+)\.({'|'.join(map(re.escape, ENDINGS.values()))})")
_LEAF_OF = {ending: leaf for leaf, ending in ENDINGS.items()}
_SHARED_OF = {name: leaf for leaf, name in SHARED.items()}


class Stored(NamedTuple):
    """What a file of tensors holds, with our names and axes."""

    leaves_of: dict[str, Leaves]  # the adapters' parameters, by module
    shared: Leaves  # what all modules share
    trained: dict[str, np.ndarray]  # parameters of the base, by path


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
      tuned: the norms that `NormTuning` lets move.
    """
    tensors = {SHARED[name]: _to_torch(wide(leaf)) for name, leaf in shared.items()}
    for module, leaves in leaves_of.items():
        for name, array in _plain(leaves).items():
            key = f"{PREFIX}{names.modules[module]}.{ENDINGS[name]}"
            tensors[key] = _of_module(adapter, module, name, array)
    for path, leaf in trained.items():
        key = f"{PREFIX}{names.tensors[path]}"
        module = path.rpartition("/")[0]
        if module in leaves_of:  # PEFT puts its own module around it
            key = ".base_layer.".join(key.rsplit(".", 1))
        elif module in tuned:  # and beside the norm that was
            key = f".{TUNED}.".join(key.rsplit(".", 1))
        tensors[key] = to_tensor(path, np.asarray(leaf), names.family)
    return tensors


def from_tensors(tensors: Mapping[str, np.ndarray], names: Names) -> Stored:
    """Undo ``to_tensors``.

    Raises:
      InputError: for a tensor that is neither an adapter's nor the model's.
    """
    stored = Stored({}, {}, {})
    for key, tensor in tensors.items():
        if key in _SHARED_OF:
            stored.shared[_SHARED_OF[key]] = from_torch(tensor)
            continue
        name = key.removeprefix(PREFIX)
        if match := _OWN.fullmatch(name):
            module, leaf = names.module_path(match[1]), _LEAF_OF[match[2]]
            array = _from_torch(leaf, tensor)
            stored.leaves_of.setdefault(module, {})[leaf] = array
            continue
        path = names.paths.get(re.sub(rf"\.(base_layer|{TUNED})\.", ".", name))
        if path is None:
            raise InputError(
                f"the adapter holds the tensor {key!r}, which is neither an adapter's "
                f"({', '.join(sorted(ENDINGS.values()))}) nor a parameter of the model."
            )
        stored.trained[path] = from_tensor(path, tensor, names.family)
    return stored


def _plain(leaves: Leaves) -> dict[str, np.ndarray]:
    """What PEFT knows: PiSSA becomes a plain LoRA of twice the rank."""
    arrays = {name: wide(leaf) for name, leaf in leaves.items()}
    if f"lora_A{START}" in arrays:
        arrays["lora_A"], arrays["lora_B"] = both_factors(arrays)
    if "lora_A" in arrays:  # a convolution's B is one of size 1
        ones = (1,) * (arrays["lora_A"].ndim - 2)
        arrays["lora_B"] = arrays["lora_B"].reshape(*ones, *arrays["lora_B"].shape)
    return {name: x for name, x in arrays.items() if not name.endswith(START)}


def _of_module(
    adapter: Adapter, module: str, name: str, array: np.ndarray
) -> np.ndarray:
    """A leaf with PEFT's axes."""
    if name == "ia3_l":
        on_inputs = isinstance(adapter, Ia3) and adapter.on_inputs(module)
        return np.ascontiguousarray(array[None] if on_inputs else array[:, None])
    return _to_torch(array)


def _to_torch(array: np.ndarray) -> np.ndarray:
    """Vectors stay; a matrix or kernel gets torch's axes."""
    return array if array.ndim == 1 else to_torch(array)


def _from_torch(name: str, tensor: np.ndarray) -> np.ndarray:
    """Undo ``_of_module``; a convolution's B is a matrix here, of size 1 there."""
    if name == "ia3_l":
        return tensor.reshape(-1)
    if name == "lora_B":
        tensor = tensor.reshape(tensor.shape[:2])
    return np.ascontiguousarray(from_torch(tensor))
