# SPDX-License-Identifier: Apache-2.0
"""VeRA: random factors that all products share, and two learned vectors for each.

``y = x W + b * ((d * (x A)) B)``: A and B are drawn once and never move, ``d`` starts
at a constant and ``b`` at zero, so that nothing changes at first. Kopiczko et al. 2023,
arXiv 2310.11454.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jft.config.kinds import Count, Fraction
from jft.models.arrays import along_last
from jft.models.dropout import drop
from jft.params.adapters.adapter import (
    Call,
    Leaves,
    Product,
    Stored,
    key_of,
    wide,
)
from jft.params.adapters.peft_names import Names
from jft.params.adapters.targets import ALL_LINEAR, Targeted, check_kind
from jft.types import InputError, Params


@dataclass(frozen=True, kw_only=True)
class Vera(Targeted):
    """Vector-based random matrix adaptation.

    Each product reads the first rows of A and the first columns of B, as many as it
    has inputs and outputs.

    Attributes:
      rank: columns of A; may be larger than the matrices.
      targets: see `choose_targets`; products only.
      dropout: of the path's input.
      d_initial: where ``d`` starts.
    """

    peft_type: ClassVar[str] = "VERA"
    still: ClassVar[tuple[str, ...]] = ("vera_A", "vera_B")
    read_in_part: ClassVar[Mapping[str, int]] = {"vera_A": 0, "vera_B": 1}
    known: ClassVar[tuple[str, ...]] = (
        "d_initial", "init_weights", "projection_prng_key", "r", "save_projection",
        "vera_dropout",
    )  # fmt: skip
    endings: ClassVar[Mapping[str, str]] = {
        "vera_lambda_b": "vera_lambda_b",
        "vera_lambda_d": "vera_lambda_d",
    }
    shared_names: ClassVar[Mapping[str, str]] = {
        "vera_A": "base_model.vera_A",
        "vera_B": "base_model.vera_B",
    }
    rank: Count = 256
    targets: tuple[str, ...] = (ALL_LINEAR,)
    dropout: Fraction = 0.0
    d_initial: float = 0.1

    def init(
        self, products: Mapping[str, Product], params: Params, key: jax.Array
    ) -> dict[str, Leaves]:
        """The vectors, in float32."""
        del params, key
        if self.rank < 1:
            raise InputError(f"rank {self.rank} for a VeRA; expected 1 or more.")
        made = {}
        for path, product in products.items():
            shapes = self.shapes(path, product)
            start = {"vera_lambda_b": 0.0, "vera_lambda_d": self.d_initial}
            made[path] = {
                name: jnp.full(shapes[name], value, jnp.float32)
                for name, value in start.items()
            }
        return made

    def init_shared(self, products: Mapping[str, Product], key: jax.Array) -> Leaves:
        """Draw A and B with He's bound, large enough for every product."""
        made = {}
        for name, shape in self.shared_shapes(products).items():
            fan_in = self.rank if name == "vera_B" else shape[0]
            bound = (6 / fan_in) ** 0.5
            made[name] = jax.random.uniform(
                key_of(key, name), shape, jnp.float32, -bound, bound
            )
        return made

    def shared_shapes(
        self, products: Mapping[str, Product]
    ) -> dict[str, tuple[int, ...]]:
        """For the most inputs and the most outputs of a product."""
        most_in, most_out = (
            max(product.shape[axis] for product in products.values()) for axis in (0, 1)
        )
        return {"vera_A": (most_in, self.rank), "vera_B": (self.rank, most_out)}

    def shapes(self, path: str, product: Product) -> dict[str, tuple[int, ...]]:
        """One number an output, and one a column of A."""
        check_kind("VeRA", path, product)
        return {"vera_lambda_b": product.shape[-1:], "vera_lambda_d": (self.rank,)}

    def forward(self, path: str, call: Call, leaves: Leaves) -> jax.Array:
        """The module's answer and the scaled path's; ``[..., in] -> [..., out]``."""
        y = call.run(call.x)
        leaves = {name: leaf.astype(y.dtype) for name, leaf in leaves.items()}
        x, words = call.x, call.dropout_words() if self.dropout else None
        if words is not None:
            x = drop(x, words, rate=self.dropout)
        low = x @ leaves["vera_A"][: x.shape[-1]]
        low = low * along_last(leaves["vera_lambda_d"], low)
        back: jax.Array = low @ leaves["vera_B"][:, : y.shape[-1]]
        return y + along_last(leaves["vera_lambda_b"], back) * back

    def fold(self, path: str, base: Leaves, leaves: Leaves) -> Leaves:
        """Add the product of the scaled factors to the matrix."""
        x = {name: wide(leaf) for name, leaf in leaves.items()}
        matrix = wide(base["kernel"])
        num_in, num_out = matrix.shape
        a = x["vera_A"][:num_in] * x["vera_lambda_d"][None]
        b = x["vera_B"][:, :num_out] * x["vera_lambda_b"][None]
        return {**base, "kernel": matrix + a @ b}

    def peft_options(self, adapted: Collection[str], names: Names) -> dict[str, Any]:
        """With the random factors, which PEFT would else draw from the seed."""
        del adapted, names
        return {
            "d_initial": self.d_initial,
            "projection_prng_key": 0,
            "r": self.rank,
            "save_projection": True,
            "vera_dropout": self.dropout,
        }

    @classmethod
    def from_peft(
        cls, config: Mapping[str, Any], stored: Stored, names: Names
    ) -> "Vera":
        """Read the rank, which all modules share, and what dropout there was."""
        del names
        return cls(
            rank=config.get("r", 256),
            targets=tuple(stored.leaves_of),
            dropout=config.get("vera_dropout", 0.0),
            d_initial=config.get("d_initial", 0.1),
        )
