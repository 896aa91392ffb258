# SPDX-License-Identifier: Apache-2.0
"""Read the folder of an adapter as PEFT writes it."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from jft.params.adapters.adapter import Adapter, Leaves, Product, Stored
from jft.params.adapters.base_digest import BaseDigest
from jft.params.adapters.catalog import ADAPTERS
from jft.params.adapters.peft_config import check_peft_config, from_peft_config
from jft.params.adapters.peft_names import Names
from jft.params.adapters.peft_prompts import from_peft_prompt
from jft.params.adapters.peft_tensors import from_tensors
from jft.params.adapters.virtual_tokens import VirtualTokens
from jft.params.hub import ADAPTER_FILES
from jft.params.pretrained import read_notes, read_optional, read_tensors
from jft.params.quantised import flatten_whole, is_quantised
from jft.types import InputError, Params

CONFIG, WEIGHTS = ADAPTER_FILES
# notes beside the tensors, which jft alone reads and writes
BASE_DIGEST, HEAD = "jft_base_digest", "jft_head"


def read_adapter(
    folder: str | Path,
    params: Params,
    products: Mapping[str, Product],
    names: Names,
    *,
    word_scale: float = 1.0,
) -> tuple[Adapter, Stored]:
    """Read an adapter for a base.

    Args:
      folder: holds adapter_config.json and adapter_model.safetensors.
      params: the base's parameters, to compare shapes with.
      products: the base's, see `find_products`.
      names: the base's.
      word_scale: what the base multiplies its words with.

    Returns:
      The method, and its parameters with those of the base that were trained with it.

    Raises:
      InputError: if the folder holds no adapter, a part of one, one with options that
        jft has not, or one of another base.
    """
    folder = Path(folder)
    _check_files(folder)
    config = read_optional(folder, CONFIG) or {}
    tensors = read_tensors(folder / WEIGHTS)
    methods = {method.peft_type: method for method in ADAPTERS.values()}
    method = methods.get(config.get("peft_type", ""))
    if method is None:
        raise InputError(
            f"adapter_config.json: peft_type is {config.get('peft_type')!r}; jft reads "
            f"{sorted(methods)}."
        )
    check_peft_config(method, config)
    adapter: Adapter
    if issubclass(method, VirtualTokens):
        adapter, stored = from_peft_prompt(
            method, config, tensors, products, names, word_scale
        )
    else:
        stored = from_tensors(method, tensors, names)
        adapter = from_peft_config(method, config, stored, names)
    _check_shapes(folder, adapter, stored, params, products)
    return adapter, stored


def _check_files(folder: Path) -> None:
    if not ((folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()):
        raise InputError(
            f"{folder} is no adapter: it needs {CONFIG} and {WEIGHTS}, as PEFT's "
            "save_pretrained writes them; pickled weights are not read."
        )


def read_head(folder: Path) -> dict[str, Any]:
    """The options of ``jft.load`` that give a base the adapter's head; ``{}`` of PEFT.

    Raises:
      InputError: if the folder holds no adapter.
    """
    _check_files(folder)
    told = read_notes(folder / WEIGHTS).get(HEAD, "{}")
    try:
        return dict(json.loads(told))
    except ValueError as error:
        raise InputError(
            f"{folder / WEIGHTS} says {told!r} of its head; write the adapter again."
        ) from error


def check_base(
    folder: Path, digest: BaseDigest, trained: Collection[str], heads: Collection[str]
) -> None:
    """Refuse an adapter that was trained over other numbers, where it says over which.

    Args:
      folder: the adapter's.
      digest: the base's, see `make_base_digest`.
      trained: the base's parameters that come with the adapter.
      heads: paths of the base's heads.

    Raises:
      InputError: if the digests differ.
    """
    told = read_notes(folder / WEIGHTS).get(BASE_DIGEST)
    if told is None:  # of PEFT
        return
    here = digest({*trained, *heads})
    if here is not None and here != told:
        raise InputError(
            f"{folder} is an adapter of another base: its own has the digest "
            f"{told[:12]!r}, and the model {here[:12]!r}, of the numbers that the "
            "adapter leaves alone. Load the base that it was trained over, or pass "
            "check_base=False to use it with this one."
        )


def _check_shapes(
    folder: Path,
    adapter: Adapter,
    stored: Stored,
    params: Params,
    products: Mapping[str, Product],
) -> None:
    """Refuse an adapter that lacks a part, or is of a base with other sizes."""
    flat = flatten_whole(params)
    for path, array in stored.trained.items():
        if is_quantised(flat[path]):
            raise InputError(
                f"{folder} holds {path}, trained as a whole, and the model has it "
                "quantised; load the base without quantize."
            )
        if array.shape != flat[path].shape:
            raise InputError(_other_base(folder, path, array.shape, flat[path].shape))
    for module, leaves in stored.leaves_of.items():
        if module not in products:
            raise InputError(
                f"{folder} adapts {module}, which is no product, embedding or "
                "convolution that the model's forward calls."
            )
        expected = adapter.shapes(module, products[module])
        if leaves.keys() != expected.keys():
            raise InputError(
                f"{folder} holds {sorted(leaves)} for {module}, but its "
                f"{adapter.peft_type} needs {sorted(expected)}; save the adapter anew."
            )
        for name, array in leaves.items():
            if array.shape != expected[name]:
                path, shape = f"{module}/{name}", products[module].shape
                raise InputError(_other_base(folder, path, array.shape, shape))
    adapted = {module: products[module] for module in stored.leaves_of}
    _check_shared(folder, adapter, adapter.shared_shapes(adapted), stored.shared)


def _check_shared(
    folder: Path,
    adapter: Adapter,
    expected: Mapping[str, tuple[int, ...]],
    shared: Leaves,
) -> None:
    """Refuse factors that are absent, too small for a product, or of another rank."""
    given = {name: array.shape for name, array in shared.items()}
    if given.keys() != expected.keys():
        raise InputError(
            f"{folder} holds {sorted(given)} for all modules, but needs "
            f"{sorted(expected)}; of a VeRA, save it with save_projection=True: what "
            "torch draws from a seed, nothing else does."
        )
    for name, shape in expected.items():
        if len(given[name]) != len(shape):
            raise InputError(_other_base(folder, name, given[name], shape))
        for axis, (size, needed) in enumerate(zip(given[name], shape, strict=True)):
            in_part = adapter.read_in_part.get(name) == axis
            if in_part and size < needed:
                raise InputError(_other_base(folder, name, given[name], shape))
            if not in_part and size != needed:
                raise InputError(
                    f"{folder} holds {name} of the shape {list(given[name])}, and its "
                    f"adapter_config.json says the rank {needed} where that has "
                    f"{size}; correct the one or save the adapter anew."
                )


def _other_base(folder: Path, path: str, given: Any, expected: Any) -> str:
    return (
        f"{folder} is an adapter of another base: {path} has the shape {list(given)} "
        f"there, and the model's matrix {list(expected)}. Load the base that it names."
    )
