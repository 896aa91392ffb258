# SPDX-License-Identifier: Apache-2.0
"""How adapters reach the layers: linen lets one stand between module and caller."""

import functools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flax import linen as nn

from jft.models.dropout import random_words
from jft.params.adapters.adapter import Adapter, Call, LeavesOf
from jft.params.adapters.products import kind_of, place_of
from jft.params.adapters.tree import adapters_of, without_adapters


@dataclass(frozen=True)
class AdaptedModule:
    """A family's module whose products are adapted; applied like the module.

    Its parameters are the module's with the subtree ``adapters``; without it, the
    module answers as it is.
    """

    module: Any  # the linen module, which knows nothing of this
    adapter: Adapter

    @property
    def config(self) -> Any:
        """The module's config."""
        return self.module.config

    @property
    def task(self) -> str:
        """What the module's head answers."""
        task: str = self.module.task
        return task

    def apply(self, variables: Mapping[str, Any], batch: Any, **options: Any) -> Any:
        """Run the module, see ``flax.linen.Module.apply``."""
        params = variables["params"]
        base = {**variables, "params": without_adapters(params)}

        def run(batch: Any, own: LeavesOf, **options: Any) -> Any:
            with nn.intercept_methods(_beside(self.adapter, own)):
                return self.module.apply(base, batch, **options)

        return self.adapter.around(
            run,
            self.module,
            batch,
            adapters_of(params),
            cached="cache" in variables,
            **options,
        )


def _beside(adapter: Adapter, leaves_of: LeavesOf) -> Callable[..., Any]:
    """The interceptor: adapted modules answer as the adapter says."""
    uses: Counter[str] = Counter()

    def intercept(
        run: Callable[..., Any],
        args: Any,
        kwargs: Any,
        context: nn.module.InterceptorContext,
    ) -> Any:
        module = context.module
        if context.method_name != "__call__" or kind_of(module) is None:
            return run(*args, **kwargs)
        path = place_of(module)
        if path not in leaves_of:
            return run(*args, **kwargs)
        call = Call(
            run=functools.partial(run, **kwargs),
            x=args[0],
            base=lambda name: module.get_variable("params", name),
            dropout_words=lambda: (
                random_words(module.make_rng("dropout"))
                if module.has_rng("dropout")
                else None
            ),
            nth=uses[path],
        )
        uses[path] += 1
        return adapter.forward(path, call, leaves_of[path])

    return intercept
