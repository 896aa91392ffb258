# SPDX-License-Identifier: Apache-2.0
"""(IA)³: learned factors of keys, values and the wide layer of the MLP.

Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than
In-Context Learning", arXiv 2205.05638.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jft.models.arrays import along_last
from jft.params.adapters.adapter import Call, Leaves, Product, Stored, wide
from jft.params.adapters.peft_names import Names, names_module
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
    mixes: ClassVar[bool] = True
    scales_bias: ClassVar[bool] = True
    known: ClassVar[tuple[str, ...]] = ("feedforward_modules",)
    endings: ClassVar[Mapping[str, str]] = {"ia3_l": "ia3_l"}
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

    def parts(self, path: str, base: Leaves, leaves: Leaves) -> dict[str, np.ndarray]:
        """Its factors."""
        del base
        return {"inputs" if self.on_inputs(path) else "outputs": leaves["ia3_l"]}

    def peft_options(self, adapted: Collection[str], names: Names) -> dict[str, Any]:
        """The full names of the targets, and of those whose inputs are multiplied."""
        on_inputs = [path for path in adapted if self.on_inputs(path)]
        return {
            "feedforward_modules": sorted(names.modules[path] for path in on_inputs),
            "target_modules": sorted(names.modules[path] for path in adapted),
        }

    @classmethod
    def from_peft(
        cls, config: Mapping[str, Any], stored: Stored, names: Names
    ) -> "Ia3":
        """Read which modules have factors of their inputs."""
        targets, named = tuple(stored.leaves_of), config.get("feedforward_modules")
        feedforward = (x for x in targets if names_module(named, names.modules[x]))
        return cls(targets=targets, feedforward=tuple(feedforward))

    def to_torch(self, path: str, leaves: Leaves) -> dict[str, np.ndarray]:
        """A row, or a column where the outputs are multiplied."""
        factors = wide(leaves["ia3_l"])
        shaped = factors[None] if self.on_inputs(path) else factors[:, None]
        return {"ia3_l": np.ascontiguousarray(shaped)}

    @classmethod
    def from_torch(cls, name: str, tensor: np.ndarray) -> np.ndarray:
        """The factors, whichever way they stood."""
        del name
        return tensor.reshape(-1)
