# SPDX-License-Identifier: Apache-2.0
"""Prefix tuning: learned keys and values before those of the text, in every layer.

Li and Liang 2021, "Prefix-Tuning: Optimizing Continuous Prompts for Generation", arXiv
2101.00190, without the network that they made the numbers with in training.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jft.config.kinds import Count
from jft.models.virtual_tokens import put_before
from jft.params.adapters.adapter import (
    Adapter,
    Call,
    Forward,
    Leaves,
    LeavesOf,
    Product,
    key_of,
)
from jft.types import Batch, InputError, Params

SPREAD = 0.02  # of the first numbers


@dataclass(frozen=True, kw_only=True)
class PrefixTuning(Adapter):
    """Every self-attention also looks at keys and values that no token has.

    They stand at the first positions, as in PEFT: those of the text count from behind
    them, rotary ones too, and the learned keys are not turned. A decoder's sliding
    window leaves them behind. Of an encoder-decoder, the decoder alone has them.
    T5's decoder adds its bias by distance to their scores; where an attention has no
    such column for them (DeBERTa's, T5's encoder) they get none. Images have no
    positions to give away, so theirs stay.

    The model's answers change from the start on: even keys and values of zero take
    their share of the attention.

    Attributes:
      num_virtual_tokens: P, the length of the prefix.
    """

    peft_type: ClassVar[str] = "PREFIX_TUNING"
    foldable: ClassVar[bool] = False
    kinds: ClassVar[tuple[str, ...]] = ("attention",)
    num_virtual_tokens: Count = 20

    def init(
        self, products: Mapping[str, Product], params: Params, key: jax.Array
    ) -> dict[str, Leaves]:
        """Draw keys and values ``[P, G, K]`` close to zero, in float32."""
        del params
        made = {}
        for path in prefix_places(products):
            (shape,) = set(self.shapes(path, products[path]).values())
            drawn = jax.random.normal(key_of(key, path), (2, *shape), jnp.float32)
            key_and_value = SPREAD * drawn
            made[path] = {
                "prefix_key": key_and_value[0],
                "prefix_value": key_and_value[1],
            }
        return made

    def shapes(self, path: str, product: Product) -> dict[str, tuple[int, ...]]:
        """Of keys and values: ``[P, G, K]``."""
        del path
        shape = (self.num_virtual_tokens, *product.shape)
        return {"prefix_key": shape, "prefix_value": shape}

    def around(
        self, run: Forward, module: Any, batch: Batch, own: LeavesOf, **options: Any
    ) -> Any:
        """The text's positions count from behind the prefix."""
        del module, options["cached"]
        before = self.num_virtual_tokens if own else 0
        return run({**batch, "num_before": before}, own, **options)

    def forward(self, path: str, call: Call, leaves: Leaves) -> Any:
        """What the attention looks at, and the prefix before it."""
        del path
        seen: Any = call.run(call.x)
        return put_before(seen, leaves["prefix_key"], leaves["prefix_value"])

    def fold(self, path: str, base: Leaves, leaves: Leaves) -> Leaves:
        """Refused before: no parameter of the base adds a key."""
        raise InputError(
            f"the prefix of {path} cannot be folded; keep it apart, with "
            "jft.save_adapter."
        )

    def most_tokens(self, most: int) -> int:
        """The prefix takes positions too."""
        return most - self.num_virtual_tokens


def prefix_places(products: Mapping[str, Product]) -> list[str]:
    """The attentions that have a prefix: of an encoder-decoder, the decoder's."""
    places = [path for path, x in products.items() if x.kind == "attention"]
    return [path for path in places if "decoder" in path.split("/")] or places
