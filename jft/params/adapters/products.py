# SPDX-License-Identifier: Apache-2.0
"""Which modules of a model an adapter can reach, found by tracing its forward."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jft.models import Family, vit
from jft.models.before import Sight
from jft.models.layers import Embed
from jft.params.adapters.adapter import Product


def find_products(family: Family, config: Any, task: str) -> dict[str, Product]:
    """Find the products and look-ups that a forward calls; nothing is computed.

    A matrix that is read in another way, such as a table of positions that is added as
    it is, is not among them: no adapter could stand beside it.

    Args:
      family: the model's.
      config: what ``family.config_from_dict`` returned.
      task: the model's.

    Returns:
      ``{path of the module: Product}``, in the order of the forward.
    """
    module = family.make_module(config, task)
    shapes = family.example_batch(config, task)
    found: dict[str, Product] = {}

    def watch(
        run: Callable[..., Any],
        args: Any,
        kwargs: Any,
        context: nn.module.InterceptorContext,
    ) -> Any:
        kind, method = kind_of(context.module), context.method_name
        y = run(*args, **kwargs)
        if kind and method in ("__call__", "attend"):
            path = place_of(context.module)
            before = found.get(path)
            scores = method == "attend" or (before is not None and before.scores)
            if kind == "dense":
                found[path] = Product("dense", (args[0].shape[-1], y.shape[-1]))
            elif kind == "embed":
                table = context.module
                shape = (table.num_embeddings, table.features)
                found[path] = Product("embed", shape, scores)
            else:
                shape = (y.key if kind == "attention" else y).shape[-2:]
                found[path] = Product(kind, shape)
        return y

    def trace(key: jax.Array) -> Any:
        batch = {name: jnp.zeros(x.shape, x.dtype) for name, x in shapes.items()}
        with nn.intercept_methods(watch):
            return module.init(key, batch)

    jax.eval_shape(trace, jax.random.key(0))
    return found


def kind_of(module: Any) -> str | None:
    """What a module is to an adapter, a `Product`'s kind; None: nothing."""
    if isinstance(module, nn.Dense):
        return "dense"
    if isinstance(module, Sight):
        return None if module.cross else "attention"
    if isinstance(module, vit.Embeddings):
        return "images"
    return "embed" if isinstance(module, Embed) else None


def place_of(module: Any) -> str:
    """The path that stands for a module: of what an attention sees, the attention's."""
    path = module.path[:-1] if isinstance(module, Sight) else module.path
    return "/".join(path)
