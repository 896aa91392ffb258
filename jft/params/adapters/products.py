# SPDX-License-Identifier: Apache-2.0
"""Which modules of a model an adapter can reach, found by tracing its forward."""

import functools
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jft.models import Family, vit
from jft.models.layers import Blocks, Embed, PatchConv
from jft.models.virtual_tokens import Sight
from jft.params.adapters.adapter import Product


def find_products(family: Family, config: Any, task: str) -> dict[str, Product]:
    """Find the products, look-ups and convolutions of a forward; nothing is computed.

    A matrix that is read in another way, such as a table of positions that is added as
    it is, is not among them: no adapter could stand beside it.

    Args:
      family: the model's.
      config: what ``family.config_from_dict`` returned.
      task: the model's.

    Returns:
      ``{path of the module: Product}``, in the order of the forward.
    """
    return dict(_find(family, config, task))


@functools.lru_cache(maxsize=64)  # a set of adapters asks once for each of them
def _find(family: Family, config: Any, task: str) -> Mapping[str, Product]:
    module = family.make_module(config, task)
    shapes = family.example_batch(config, task)
    found: dict[str, Product] = {}
    stacks: set[str] = set()  # the paths of runs of blocks

    def watch(
        run: Callable[..., Any],
        args: Any,
        kwargs: Any,
        context: nn.module.InterceptorContext,
    ) -> Any:
        kind, method = kind_of(context.module), context.method_name
        if isinstance(context.module, Blocks):
            stacks.add("/".join(context.module.path))
        y = run(*args, **kwargs)
        if kind and method in ("__call__", "attend"):
            path = place_of(context.module)
            before = found.get(path)
            scores = method == "attend" or (before is not None and before.scores)
            if kind == "dense":
                found[path] = Product("dense", (args[0].shape[-1], y.shape[-1]))
            elif kind == "conv":
                shape = context.module.get_variable("params", "kernel").shape
                groups = groups_of(context.module)
                found[path] = Product("conv", shape, groups=groups)
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
    return found | _ends(family, found, stacks)


def _ends(
    family: Family, found: Mapping[str, Product], stacks: Collection[str]
) -> dict[str, Product]:
    """The products whose answers a block adds to its input, with what they end.

    They are those that tensor parallelism splits by rows; of a block the last is the
    MLP's.
    """
    of_block: dict[str, list[str]] = {}
    for path in found:
        inside = [stack for stack in stacks if path.startswith(f"{stack}/")]
        if inside and re.fullmatch(rf"(?:.+/)?(?:{family.row_parallel})", path):
            stack = max(inside, key=len)
            number = path.removeprefix(f"{stack}/").partition("/")[0]
            of_block.setdefault(f"{stack}/{number}", []).append(path)
    return {
        path: found[path]._replace(ends="mlp" if path == paths[-1] else "attention")
        for paths in of_block.values()
        for path in paths
    }


def rows_of_calls(module: Any, params: Any, batch: Any) -> dict[str, list[int]]:
    """How many vectors each module answers, call by call; nothing is computed.

    Args:
      module: the model's, without adapters.
      params: its parameters, as arrays or shapes.
      batch: shapes or arrays.
    """
    rows: dict[str, list[int]] = {}

    def watch(
        run: Callable[..., Any],
        args: Any,
        kwargs: Any,
        context: nn.module.InterceptorContext,
    ) -> Any:
        y = run(*args, **kwargs)
        if context.method_name == "__call__" and isinstance(y, jax.Array):
            path = "/".join(context.module.path)
            rows.setdefault(path, []).append(y.size // y.shape[-1])
        return y

    def trace(params: Any, batch: Any) -> Any:
        with nn.intercept_methods(watch):
            return module.apply({"params": params}, batch)

    jax.eval_shape(trace, params, batch)
    return rows


def kind_of(module: Any) -> str | None:
    """What a module is to an adapter, a `Product`'s kind; None: nothing."""
    if isinstance(module, nn.Dense):
        return "dense"
    if isinstance(module, nn.Conv | PatchConv):
        return "conv"
    if isinstance(module, Sight):
        return None if module.cross else "attention"
    if isinstance(module, vit.Embeddings):
        return "images"
    return "embed" if isinstance(module, Embed) else None


def place_of(module: Any) -> str:
    """The path that stands for a module: of what an attention sees, the attention's."""
    path = module.path[:-1] if isinstance(module, Sight) else module.path
    return "/".join(path)


def groups_of(module: Any) -> int:
    """In how many groups a convolution takes its channels."""
    return module.feature_group_count if isinstance(module, nn.Conv) else 1
