# SPDX-License-Identifier: Apache-2.0
"""Bottleneck adapters: a narrow layer with a skip connection inside each block.

``y + up(f(down(y)))``, where ``y`` is what a sub-layer of a block adds to its input:
the answer of attention's last product, or of the MLP's, before dropout and the sum.
``up`` starts at zero, so that nothing changes at first. Houlsby et al. 2019, arXiv
1902.00751, put one after attention and one after the MLP; Pfeiffer et al. 2020, arXiv
2005.00247, found that one after the MLP is enough.

The papers put theirs behind the sub-layer's dropout; here it is before, where the
product ends. Without dropout the two are the same.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from jft.config.kinds import Count
from jft.models.arrays import along_last
from jft.models.layers import activate
from jft.models.nonlinearities import ACTIVATIONS
from jft.params.adapters.adapter import Adapter, Call, Leaves, Product, key_of
from jft.types import InputError, Params


@dataclass(frozen=True, kw_only=True)
class Bottleneck(Adapter):
    """A narrow layer after the sub-layers; it is not linear, so it cannot be folded.

    Attributes:
      placement: ``"houlsby"``: after each attention and the MLP of a block;
        ``"pfeiffer"``: after the MLP.
      reduction_factor: the block's width over the narrow layer's, rounded down.
      nonlinearity: a name in `jft.models.nonlinearities.ACTIVATIONS`.
    """

    peft_type: ClassVar[str] = "JFT_BOTTLENECK"
    foldable: ClassVar[bool] = False
    known: ClassVar[tuple[str, ...]] = ("nonlinearity", "placement", "reduction_factor")
    endings: ClassVar[Mapping[str, str]] = {
        "bottleneck_down": "bottleneck_down.weight",
        "bottleneck_down_bias": "bottleneck_down.bias",
        "bottleneck_up": "bottleneck_up.weight",
        "bottleneck_up_bias": "bottleneck_up.bias",
    }
    placement: Literal["houlsby", "pfeiffer"] = "houlsby"
    reduction_factor: Count = 16
    nonlinearity: str = "relu"

    def __post_init__(self) -> None:
        """Refuse what no block could fit."""
        if self.placement not in ("houlsby", "pfeiffer"):
            raise InputError(
                f"placement is {self.placement!r}; expected 'houlsby' or 'pfeiffer'."
            )
        if self.nonlinearity not in ACTIVATIONS:
            raise InputError(
                f"nonlinearity is {self.nonlinearity!r}; expected one of "
                f"{sorted(ACTIVATIONS)}."
            )
        if self.reduction_factor < 1:
            raise InputError(
                f"reduction_factor is {self.reduction_factor}; expected 1 or more."
            )

    def choose(
        self,
        products: Mapping[str, Product],
        *,
        head: Collection[str],
        modules: Collection[str],
    ) -> dict[str, Product]:
        """Pick the last product of each sub-layer, or of each MLP."""
        del modules
        kinds = ("mlp",) if self.placement == "pfeiffer" else ("attention", "mlp")
        chosen = {
            path: product
            for path, product in products.items()
            if product.ends in kinds and path not in head
        }
        if not chosen:
            raise InputError(
                "the model has no blocks of attention and an MLP that stay as they "
                "are, so a bottleneck has no place in it; use another method, such as "
                "bitfit."
            )
        return chosen

    def init(
        self, products: Mapping[str, Product], params: Params, key: jax.Array
    ) -> dict[str, Leaves]:
        """Draw ``down`` as torch draws a layer, in float32; the rest is zero."""
        del params
        made = {}
        for path, product in products.items():
            shapes = self.shapes(path, product)
            width, narrow = shapes["bottleneck_down"]
            if narrow < 1:
                raise InputError(
                    f"reduction_factor is {self.reduction_factor}, and {path} has "
                    f"{width} outputs, so nothing would be left; expected 1 to {width}."
                )
            leaves = {name: jnp.zeros(x, jnp.float32) for name, x in shapes.items()}
            leaves["bottleneck_down"] = jax.random.uniform(
                key_of(key, path),
                (width, narrow),
                jnp.float32,
                -(width**-0.5),
                width**-0.5,
            )
            made[path] = leaves
        return made

    def shapes(self, path: str, product: Product) -> dict[str, tuple[int, ...]]:
        """Of both layers."""
        width = product.shape[-1]
        narrow = width // self.reduction_factor
        return {
            "bottleneck_down": (width, narrow),
            "bottleneck_down_bias": (narrow,),
            "bottleneck_up": (narrow, width),
            "bottleneck_up_bias": (width,),
        }

    def forward(self, path: str, call: Call, leaves: Leaves) -> jax.Array:
        """What the sub-layer answers and the narrow layers' part, ``[..., D]``."""
        y = call.run(call.x)
        leaves = {name: leaf.astype(y.dtype) for name, leaf in leaves.items()}
        low = y @ leaves["bottleneck_down"]
        low = activate(
            low + along_last(leaves["bottleneck_down_bias"], low), self.nonlinearity
        )
        back: jax.Array = low @ leaves["bottleneck_up"]
        return y + back + along_last(leaves["bottleneck_up_bias"], back)

    def fold(self, path: str, base: Leaves, leaves: Leaves) -> Leaves:
        """Refused: see ``foldable``."""
        raise AssertionError(f"{path} has a bottleneck, which is refused before")
