# SPDX-License-Identifier: Apache-2.0
"""A model whose products are quantised: how they are computed, and which can be."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from flax import linen as nn

from jft.models.arrays import along_last
from jft.models.wrapped import WrappedModule
from jft.params.quantised import (
    dequantize,
    flatten_whole,
    is_quantised,
    product,
    quantize_known,
)
from jft.paths import unflatten
from jft.types import Params


@dataclass(frozen=True)
class QuantisedModule(WrappedModule):
    """A family's module some of whose matrices are quantised; applied like the module.

    A product whose kernel is quantised is computed from its codes, the others as the
    module does.
    """

    def apply(self, variables: Mapping[str, Any], *args: Any, **options: Any) -> Any:
        """Run the module, see ``flax.linen.Module.apply``."""
        with nn.intercept_methods(_from_codes):
            return self.module.apply(variables, *args, **options)


def _from_codes(
    run: Callable[..., Any],
    args: Any,
    kwargs: Any,
    context: nn.module.InterceptorContext,
) -> Any:
    """The interceptor: a product as ``nn.Dense`` has it, of codes."""
    module = context.module
    if context.method_name != "__call__" or not isinstance(module, nn.Dense):
        return run(*args, **kwargs)
    kernel = module.get_variable("params", "kernel")
    if not is_quantised(kernel):
        return run(*args, **kwargs)
    (x,) = args
    y = product(x.reshape(-1, x.shape[-1]), kernel).reshape(*x.shape[:-1], -1)
    bias = module.get_variable("params", "bias")
    return y if bias is None else y + along_last(bias.astype(y.dtype), y)


def quantize_params(params: Params, modules: Collection[str], kind: str) -> Params:
    """Quantise the kernels of some modules.

    Args:
      params: the model's; the others of them come back as they are.
      modules: paths of products.
      kind: one of ``jft.params.quantised.KINDS``.
    """
    return unflatten(
        {
            path: quantize_known(leaf, kind) if _module_of(path) in modules else leaf
            for path, leaf in flatten_whole(params).items()
        }
    )


def dequantize_params(
    params: Params, shapes: Mapping[str, tuple[int, ...]], dtype: Any
) -> Params:
    """The parameters that a plain model has, for the same answers.

    Args:
      params: the model's.
      shapes: ``[in, out]`` of the kernel of each product.
      dtype: of the matrices.
    """

    def plain(path: str, leaf: Any) -> Any:
        if not is_quantised(leaf):
            return leaf
        return dequantize(leaf, shapes[_module_of(path)][0], dtype)

    whole = flatten_whole(params)
    return unflatten({path: plain(path, leaf) for path, leaf in whole.items()})


def _module_of(path: str) -> str:
    """The module of a kernel; "" for any other parameter."""
    return path.removesuffix("/kernel") if path.endswith("/kernel") else ""
