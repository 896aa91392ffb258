# SPDX-License-Identifier: Apache-2.0
"""Methods without parameters of their own: a few of the base's move."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax

from jft.params.adapters.adapter import Adapter, Call, Leaves, Product
from jft.types import Params


@dataclass(frozen=True, kw_only=True)
class _Tuning(Adapter):
    """Nothing is added, so nothing is adapted and all of it is folded."""

    def init(
        self, products: Mapping[str, Product], params: Params, key: jax.Array
    ) -> dict[str, Leaves]:
        """Draw nothing."""
        del products, params, key
        return {}

    def forward(self, path: str, call: Call, leaves: Leaves) -> jax.Array:
        """As the module answers."""
        del path, leaves
        return call.run(call.x)

    def fold(self, path: str, base: Leaves, leaves: Leaves) -> Leaves:
        """As they are."""
        del path, leaves
        return base


@dataclass(frozen=True, kw_only=True)
class BitFit(_Tuning):
    """The biases move, and nothing else: Ben Zaken et al. 2021, arXiv 2106.10199."""

    peft_type: ClassVar[str] = "JFT_BITFIT"
    mixes: ClassVar[bool] = True

    def moves(
        self, path: str, adapted: Collection[str], norms: Collection[str]
    ) -> bool:
        """Every bias."""
        return path.rpartition("/")[2] == "bias"


@dataclass(frozen=True, kw_only=True)
class NormTuning(_Tuning):
    """The scales and biases of the norms move: Zhao et al. 2023, arXiv 2312.11420."""

    peft_type: ClassVar[str] = "LN_TUNING"
    tunes_norms: ClassVar[bool] = True

    def moves(
        self, path: str, adapted: Collection[str], norms: Collection[str]
    ) -> bool:
        """Every parameter of a norm."""
        return path.rpartition("/")[0] in norms
