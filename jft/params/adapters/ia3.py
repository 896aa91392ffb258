# SPDX-License-Identifier: Apache-2.0
"""(IA)³: learned factors of keys, values and the wide layer of the MLP.

Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than
In-Context Learning", arXiv 2205.05638.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jft.models.arrays import along_last
from jft.params.adapters.adapter import Call, Leaves, Product, wide
from jft.params.adapters.targets import Targeted, check_kind, check_patterns, matches
from jft.types import Params


@dataclass(frozen=True, kw_only=True)
class Ia3(Targeted):
    """Each output of a product is multiplied, or each input of those named so.

    Attributes:
      targets: see `choose_targets`; products only.
      feedforward: those of the targets whose inputs are multiplied: the second
        product of an MLP.
    """

    peft_type: ClassVar[str] = "IA3"
    feedforward: tuple[str, ...] = ()

    def on_inputs(self, path: str) -> bool:
        """Whether a module's inputs are multiplied, not its outputs."""
        return any(matches(name, path) for name in self.feedforward)

    def init(
        self, products: Mapping[str, Product], params: Params, key: jax.Array
    ) -> dict[str, Leaves]:
        """Ones, in float32."""
        del params, key
        check_patterns(
            "feedforward", tuple((x, True) for x in self.feedforward), products
        )
        made: dict[str, Leaves] = {}
        for path, product in products.items():
            (shape,) = self.shapes(path, product).values()
            made[path] = {"ia3_l": jnp.ones(shape, jnp.float32)}
        return made

    def shapes(self, path: str, product: Product) -> dict[str, tuple[int, ...]]:
        """A factor an output, or an input."""
        check_kind("(IA)³", path, product)
        return {
            "ia3_l": product.shape[:1] if self.on_inputs(path) else product.shape[1:]
        }

    def forward(self, path: str, call: Call, leaves: Leaves) -> jax.Array:
        """Multiply, ``[..., in] -> [..., out]``."""
        factors = along_last(leaves["ia3_l"].astype(call.x.dtype), call.x)
        if self.on_inputs(path):
            return call.run(call.x * factors)
        return call.run(call.x) * factors

    def fold(self, path: str, base: Leaves, leaves: Leaves) -> Leaves:
        """Multiply the matrix's rows, or its columns and the bias."""
        factors = wide(leaves["ia3_l"])
        if self.on_inputs(path):
            return {**base, "kernel": wide(base["kernel"]) * factors[:, None]}
        folded: dict[str, Any] = {
            **base,
            "kernel": wide(base["kernel"]) * factors[None],
        }
        if "bias" in base:
            folded["bias"] = wide(base["bias"]) * factors
        return folded
