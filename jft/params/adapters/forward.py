# SPDX-License-Identifier: Apache-2.0
"""How adapters reach the layers: linen lets one stand between module and caller."""

import functools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jft.models.dropout import random_words
from jft.models.wrapped import WrappedModule, unwrapped
from jft.params.adapters.adapter import Adapter, Call, LeavesOf
from jft.params.adapters.products import groups_of, kind_of, place_of
from jft.params.adapters.tree import adapters_of, shared_of, without_adapters
from jft.params.quantised import in_full
from jft.types import InputError


@dataclass(frozen=True)
class AdaptedModule(WrappedModule):
    """A family's module whose products are adapted; applied like the module.

    Its parameters are the module's with the subtree ``adapters``; without it, the
    module answers as it is.
    """

    adapter: Adapter

    def apply(self, variables: Mapping[str, Any], batch: Any, **options: Any) -> Any:
        """Run the module, see ``flax.linen.Module.apply``."""
        params = variables["params"]
        base = {**variables, "params": without_adapters(params)}
        shared = shared_of(params)
        leaves_of = {p: {**shared, **own} for p, own in adapters_of(params).items()}

        adapter_ids = _adapter_ids(batch)
        if adapter_ids is not None and not self.adapter.by_row:
            raise InputError(
                "the batch has adapter_ids, by which rows name adapters of their own, "
                f"and the model has the one {type(self.adapter).__name__} adapter for "
                "all rows. Take the model of jft.gather(…).mixed(), or leave the field "
                "out."
            )

        def run(batch: Any, own: LeavesOf, **options: Any) -> Any:
            beside = _beside(self.adapter, own, adapter_ids)
            with nn.intercept_methods(beside):
                return self.module.apply(base, batch, **options)

        return self.adapter.around(
            run,
            unwrapped(self.module),
            batch,
            leaves_of,
            cached="cache" in variables,
            **options,
        )


def _adapter_ids(batch: Any) -> jax.Array | None:
    """Which of several adapters answers each row, if the batch says so."""
    if not isinstance(batch, Mapping) or "adapter_ids" not in batch:
        return None
    ids = jnp.asarray(batch["adapter_ids"])
    sizes = {np.shape(x)[0] for x in jax.tree.leaves(dict(batch)) if np.ndim(x)}
    if ids.ndim != 1 or not jnp.issubdtype(ids.dtype, jnp.integer) or len(sizes) > 1:
        raise InputError(
            f"adapter_ids is {ids.dtype}{list(ids.shape)}, and the fields of the batch "
            f"have {sorted(sizes)} rows; give whole numbers [B], one for each row."
        )
    return ids


def _beside(
    adapter: Adapter, leaves_of: LeavesOf, adapter_ids: jax.Array | None
) -> Callable[..., Any]:
    """The interceptor: adapted modules answer as the adapter says."""
    uses: Counter[str] = Counter()

    def intercept(
        run: Callable[..., Any],
        args: Any,
        kwargs: Any,
        context: nn.module.InterceptorContext,
    ) -> Any:
        module = context.module
        kinds = adapter.kinds
        path = place_of(module) if kinds else "/".join(module.path)
        if context.method_name != "__call__" or path not in leaves_of:
            return run(*args, **kwargs)
        if kinds and kind_of(module) not in kinds:  # of the same path as such a place
            return run(*args, **kwargs)
        call = Call(
            run=functools.partial(run, **kwargs),
            x=args[0],
            base=lambda name: in_full(
                module.get_variable("params", name), args[0].shape[-1], args[0].dtype
            ),
            dropout_words=lambda: (
                random_words(module.make_rng("dropout"))
                if module.has_rng("dropout")
                else None
            ),
            convolve=lambda x, kernel: _convolve(module, x, kernel),
            adapter_ids=adapter_ids,
            nth=uses[path],
        )
        uses[path] += 1
        return adapter.forward(path, call, leaves_of[path])

    return intercept


def _convolve(module: Any, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve as a module does, in one group, with another kernel and no bias."""
    settings = {"features": kernel.shape[-1], "use_bias": False}
    if groups_of(module) > 1:
        settings["feature_group_count"] = 1
    other = module.clone(parent=None, **settings)
    return other.apply({"params": {"kernel": kernel}}, x)
