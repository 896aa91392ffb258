# SPDX-License-Identifier: Apache-2.0
"""The two thin factors of a LoRA, and those that PiSSA takes off again."""

import math
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jft.params.adapters.adapter import Leaves, Product, wide
from jft.params.adapters.thin import thin_product
from jft.types import InputError

START = "_start"  # ends the names of PiSSA's first factors, which never move


def both_factors(leaves: Leaves, xp: ModuleType = np) -> tuple[Any, Any]:
    """The factors of all that is added: of PiSSA ``[A, A'] [B; -B']``.

    Args:
      leaves: a module's.
      xp: ``numpy``, or ``jax.numpy`` of what may be traced.
    """
    a, b = leaves["lora_A"], leaves["lora_B"]
    if f"lora_A{START}" in leaves:
        a = xp.concatenate([a, leaves[f"lora_A{START}"]], axis=-1)
        b = xp.concatenate([b, -leaves[f"lora_B{START}"]], axis=0)
    return a, b


def rank_of(leaves: Leaves, usual: int) -> int:
    """Of a module, as the shape of its factor tells, if it is there."""
    factor = leaves.get("lora_A", leaves.get("lora_embedding_A"))
    return usual if factor is None else int(factor.shape[-1])


def widened(low: jax.Array, b: jax.Array) -> jax.Array:
    """Multiply with B: ``[..., rank] -> [..., out]``, each group with its own part."""
    rank, (num_in, num_out) = low.shape[-1], b.shape
    if rank == num_in:
        return thin_product(low, b)
    groups = rank // num_in
    low = low.reshape(*low.shape[:-1], groups, num_in)
    y = jnp.einsum("...gr,rgo->...go", low, b.reshape(num_in, groups, -1))
    return y.reshape(*low.shape[:-2], num_out)


def leading(matrix: Any, rank: int, scale: float) -> Leaves:
    """The leading part of a matrix as two factors, each twice."""
    u, values, v = np.linalg.svd(wide(matrix), full_matrices=False)
    root = np.sqrt(values[:rank] / scale)
    a = jnp.asarray(u[:, :rank] * root[None])
    b = jnp.asarray(root[:, None] * v[:rank])
    return {
        "lora_A": a,
        "lora_B": b,
        f"lora_A{START}": jnp.array(a, copy=True),
        f"lora_B{START}": jnp.array(b, copy=True),
    }


def check_rank(path: str, product: Product, rank: int) -> None:
    """Refuse a rank that the module's matrix, or its groups, cannot have."""
    (*kernel, num_out), groups = product.shape, product.groups
    most = min(math.prod(kernel) * groups, num_out)
    if not 1 <= rank <= most:
        raise InputError(
            f"rank {rank} for {path}, a matrix of {list(product.shape)}; expected 1 to "
            f"{most}. Lower it there with rank_pattern, or for all."
        )
    if rank % groups:
        raise InputError(
            f"rank {rank} for {path}, a convolution in {groups} groups; expected a "
            f"multiple of {groups}. Set it there with rank_pattern, or leave the "
            "convolution out of the targets."
        )
