# SPDX-License-Identifier: Apache-2.0
"""Which of a model's matrices are quantised, and how one is as it is loaded."""

from collections.abc import Callable, Collection
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jft import train
from jft.models import Family
from jft.params import adapters
from jft.params.quantised import quantize_known

Place = Callable[[str, np.ndarray | jax.Array], Any]  # (path, leaf) -> on a device


def choose_products(
    family: Family, config: Any, task: str, *, paths: Collection[str], new: Any = ()
) -> set[str]:
    """The modules whose kernels are quantised: every product that stays as it is.

    Not the head's, which answers the task, and none that was drawn new. Embeddings and
    what is no product stay in full.

    Args:
      family: the model's.
      config: what ``family.config_from_dict`` returned.
      task: the model's.
      paths: of the model's parameters.
      new: those of them that were drawn new.
    """
    products = adapters.find_products(family, config, task)
    head = (path for path in paths if family.is_head(path, task))
    moving = adapters.modules_of(head) | adapters.modules_of(new)
    return {
        path
        for path, product in products.items()
        if product.kind == "dense" and path not in moving
    }


def placing_quantised(
    place: Place, modules: Collection[str], kind: str, mesh: Mesh | None
) -> Place:
    """Place leaves as ``place`` does, the kernels of some modules quantised.

    No more than one matrix is there in full at a time.
    """
    kernels = {f"{module}/kernel" for module in modules}

    def place_quantised(path: str, array: np.ndarray | jax.Array) -> Any:
        if path not in kernels:
            return place(path, array)
        matrix = quantize_known(array, kind)
        if mesh is not None:
            shardings = train.param_shardings(matrix, mesh)
            matrix = jax.tree.map(train.place, matrix, shardings)
        return jax.block_until_ready(matrix)

    return place_quantised
