# SPDX-License-Identifier: Apache-2.0
"""Read the folder of an adapter as PEFT writes it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jft.params.adapters.adapter import Adapter, Leaves, Product
from jft.params.adapters.peft_config import from_peft_config
from jft.params.adapters.peft_names import Names
from jft.params.adapters.peft_prompts import METHODS, from_peft_prompt
from jft.params.adapters.peft_tensors import from_tensors
from jft.params.adapters.prompt import LEAF
from jft.params.pretrained import read_optional, read_tensors
from jft.paths import flatten
from jft.types import InputError, Params

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def read_adapter(
    folder: str | Path,
    params: Params,
    products: Mapping[str, Product],
    names: Names,
    *,
    word_scale: float = 1.0,
) -> tuple[Adapter, dict[str, Leaves], dict[str, np.ndarray]]:
    """Read an adapter for a base.

    Args:
      folder: holds adapter_config.json and adapter_model.safetensors.
      params: the base's parameters, to compare shapes with.
      products: the base's, see `find_products`.
      names: the base's.
      word_scale: what the base multiplies its words with.

    Returns:
      The method, its parameters (module -> leaves), and those of the base that were
      trained with it (by path).

    Raises:
      InputError: if the folder holds no adapter, one with options that jft has not, or
        one of another base.
    """
    folder = Path(folder)
    config = read_optional(folder, CONFIG)
    if config is None or not (folder / WEIGHTS).is_file():
        raise InputError(
            f"{folder} is no adapter: it needs {CONFIG} and {WEIGHTS}, as PEFT's "
            "save_pretrained writes them."
        )
    tensors = read_tensors(folder / WEIGHTS)
    adapter: Adapter
    if config.get("peft_type") in METHODS:
        adapter, leaves_of, trained = from_peft_prompt(
            config, tensors, products, names, word_scale
        )
    else:
        leaves_of, trained = from_tensors(tensors, names)
        adapter = from_peft_config(config, leaves_of, trained, names)
    _check_shapes(folder, leaves_of, trained, params, products)
    return adapter, leaves_of, trained


def _check_shapes(
    folder: Path,
    leaves_of: Mapping[str, Leaves],
    trained: Mapping[str, np.ndarray],
    params: Params,
    products: Mapping[str, Product],
) -> None:
    """Refuse an adapter of a base with the same names and other sizes."""
    flat = flatten(params)
    for path, array in trained.items():
        if array.shape != flat[path].shape:
            raise InputError(_other_base(folder, path, array.shape, flat[path].shape))
    for module, leaves in leaves_of.items():
        if module not in products:
            raise InputError(
                f"{folder} adapts {module}, which is no product or embedding that the "
                "model's forward calls."
            )
        for name, array in leaves.items():
            if not _fits(name, array.shape, products[module]):
                path, shape = f"{module}/{name}", products[module].shape
                raise InputError(_other_base(folder, path, array.shape, shape))


def _fits(name: str, shape: tuple[int, ...], product: Product) -> bool:
    """Whether an adapter's array belongs to a matrix of that size."""
    num_in, num_out = product.shape
    if name.startswith("prefix_"):
        return shape[1:] == product.shape
    if name == LEAF:
        return len(shape) == 2 and shape[1] == num_out
    if name.endswith("_A"):
        return len(shape) == 2 and shape[0] == num_in
    if name.endswith("_B"):
        return len(shape) == 2 and shape[1] == num_out
    return shape == (num_out,) or (name == "ia3_l" and shape == (num_in,))


def _other_base(folder: Path, path: str, given: Any, expected: Any) -> str:
    return (
        f"{folder} is an adapter of another base: {path} has the shape {list(given)} "
        f"there, and the model's matrix {list(expected)}. Load the base that it names."
    )
