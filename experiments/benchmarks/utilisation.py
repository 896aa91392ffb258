# SPDX-License-Identifier: Apache-2.0
"""Model FLOPs utilisation: the products that a step needs, of what a GPU can do.

The products are counted in the gradient of the loss as it is traced, attention's over
all pairs of tokens, whatever kernel or recomputing the step then runs by: what a step
does besides is not counted as use. Chowdhery et al. 2022, "PaLM", arXiv 2204.02311,
appendix B.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax

# device_kind -> dense bfloat16 operations a second, of NVIDIA's data sheets, which
# print twice as much for sparse matrices: H100 (SXM), H200, A100, L40S, L4
PEAK_FLOPS = {
    "NVIDIA H100 80GB HBM3": 989.4e12,
    "NVIDIA H200": 989.4e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA L4": 121e12,
}


def utilisation(flops: float, seconds: float, *, device_kind: str) -> float | None:
    """The share of the peak; None of a device whose peak is not known here.

    >>> utilisation(312e12, 2.0, device_kind="NVIDIA A100-SXM4-40GB")
    0.5
    """
    peak = PEAK_FLOPS.get(device_kind)
    return None if peak is None else flops / seconds / peak


def count_products(fn: Callable[..., Any], *args: Any) -> int:
    """Operations of the matrix products of a function, a sum and a product each one.

    A product with a vector is a weighted sum, such as those of a norm: not counted.

    >>> import jax.numpy as jnp
    >>> count_products(lambda x, y: x @ y, jnp.ones((2, 3)), jnp.ones((3, 5)))
    60
    """
    return _of_jaxpr(jax.make_jaxpr(fn)(*args).jaxpr)


def _of_jaxpr(jaxpr: Any) -> int:
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            total += _of_product(eqn)
        times = eqn.params["length"] if eqn.primitive.name == "scan" else 1
        total += times * sum(map(_of_jaxpr, _inner(eqn.params)))
    return total


def _of_product(eqn: Any) -> int:
    (contracted, _), (batch, _) = eqn.params["dimension_numbers"]
    left, right = (var.aval.shape for var in eqn.invars)
    if min(len(left), len(right)) == len(contracted) + len(batch):
        return 0
    size = math.prod(left[axis] for axis in contracted)
    return 2 * size * math.prod(eqn.outvars[0].aval.shape)


def _inner(params: Any) -> Iterator[Any]:
    """The programs that an equation has within."""
    for value in params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            one = getattr(one, "jaxpr", one)
            if hasattr(one, "eqns"):
                yield one
