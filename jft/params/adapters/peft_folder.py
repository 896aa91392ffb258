# SPDX-License-Identifier: Apache-2.0
"""Read the folder of an adapter as PEFT writes it."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jft.params.adapters.adapter import Adapter, Leaves, Product
from jft.params.adapters.base_digest import BaseDigest
from jft.params.adapters.peft_config import from_peft_config
from jft.params.adapters.peft_names import Names
from jft.params.adapters.peft_tensors import from_tensors
from jft.params.hub import ADAPTER_FILES
from jft.params.pretrained import read_notes, read_optional, read_tensors
from jft.params.quantised import flatten_whole, is_quantised
from jft.types import InputError, Params

CONFIG, WEIGHTS = ADAPTER_FILES
# notes beside the tensors, which jft alone reads and writes
BASE_DIGEST, HEAD = "jft_base_digest", "jft_head"


def read_adapter(
    folder: str | Path, params: Params, products: Mapping[str, Product], names: Names
) -> tuple[Adapter, dict[str, Leaves], dict[str, np.ndarray]]:
    """Read an adapter for a base.

    Args:
      folder: holds adapter_config.json and adapter_model.safetensors.
      params: the base's parameters, to compare shapes with.
      products: the base's, see `find_products`.
      names: the base's.

    Returns:
      The method, its parameters (module -> leaves), and those of the base that were
      trained with it (by path).

    Raises:
      InputError: if the folder holds no adapter, one with options that jft has not, or
        one of another base.
    """
    folder = Path(folder)
    _check_files(folder)
    config = read_optional(folder, CONFIG) or {}
    leaves_of, trained = from_tensors(read_tensors(folder / WEIGHTS), names)
    adapter = from_peft_config(config, leaves_of, trained, names)
    _check_shapes(folder, leaves_of, trained, params, products)
    return adapter, leaves_of, trained


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
    leaves_of: Mapping[str, Leaves],
    trained: Mapping[str, np.ndarray],
    params: Params,
    products: Mapping[str, Product],
) -> None:
    """Refuse an adapter of a base with the same names and other sizes."""
    flat = flatten_whole(params)
    for path, array in trained.items():
        if is_quantised(flat[path]):
            raise InputError(
                f"{folder} holds {path}, trained as a whole, and the model has it "
                "quantised; load the base without quantize."
            )
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
