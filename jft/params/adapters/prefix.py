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
import numpy as np

from jft.models.virtual_tokens import put_before
from jft.params.adapters.adapter import (
    Call,
    Forward,
    Leaves,
    LeavesOf,
    Product,
    key_of,
    wide,
)
from jft.params.adapters.virtual_tokens import VirtualTokens
from jft.types import Batch, InputError, Params

SPREAD = 0.02  # of the first numbers


@dataclass(frozen=True, kw_only=True)
class PrefixTuning(VirtualTokens):
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
    kinds: ClassVar[tuple[str, ...]] = ("attention",)

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

    def to_rows(
        self, leaves_of: LeavesOf, *, task: str, word_scale: float
    ) -> tuple[dict[str, Any], np.ndarray]:
        """The layers' keys and values ``[P, N * 2 * G * K]``."""
        del word_scale
        two_texts = task == "seq2seq_lm"
        rows, (heads, each) = _join(leaves_of, two_texts=two_texts)
        options: dict[str, Any] = {
            "encoder_hidden_size": heads * each,
            "num_attention_heads": heads,
            "num_layers": len(leaves_of) * (1 + two_texts),
            "prefix_projection": False,
            "token_dim": heads * each,
        }
        if two_texts:
            # what alone puts a prefix into a decoder; a prompt needs it not, and PEFT
            # 0.21 asks a model of that type for what transformers 5.23 has renamed
            options |= {"num_transformer_submodules": 2, "task_type": "SEQ_2_SEQ_LM"}
        return options, rows

    @classmethod
    def from_rows(
        cls,
        rows: np.ndarray,
        config: Mapping[str, Any],
        products: Mapping[str, Product],
        *,
        word_scale: float,
    ) -> dict[str, Leaves]:
        """Each layer's keys and values."""
        del word_scale
        two_texts = config.get("num_transformer_submodules") == 2
        return _split(rows, products, two_texts=two_texts)


def prefix_places(products: Mapping[str, Product]) -> list[str]:
    """The attentions that have a prefix: of an encoder-decoder, the decoder's."""
    places = [path for path, x in products.items() if x.kind == "attention"]
    return [path for path in places if "decoder" in path.split("/")] or places


def _join(
    leaves_of: LeavesOf, *, two_texts: bool
) -> tuple[np.ndarray, tuple[int, int]]:
    """One tensor of all layers ``[P, N * 2 * G * K]``, and ``(G, K)``."""
    places = sorted(leaves_of, key=_by_number)
    keys, values = (
        np.stack([wide(leaves_of[place][name]) for place in places], axis=1)
        for name in ("prefix_key", "prefix_value")
    )
    unread = [np.zeros_like(keys)] * 2 if two_texts else []
    joined = np.stack([keys, values, *unread], axis=2)
    return joined.reshape(len(joined), -1), keys.shape[2:]


def _split(
    rows: np.ndarray, products: Mapping[str, Product], *, two_texts: bool
) -> dict[str, Leaves]:
    """Each layer's keys and values."""
    places = sorted(prefix_places(products), key=_by_number)
    heads, each = products[places[0]].shape
    expected = len(places) * 2 * heads * each
    if rows.shape[1] not in (expected, expected * (1 + two_texts)):
        raise InputError(
            f"the adapter is of another base: its prefix has {rows.shape[1]} numbers a "
            f"position, and the model's {len(places)} layers of {heads} heads of "
            f"{each} have {expected}. Load the base that it names."
        )
    parts = rows.reshape(len(rows), -1, 2, heads, each)
    pairs = [i * (1 + two_texts) % parts.shape[1] for i in range(len(places))]
    return {
        place: {"prefix_key": parts[:, i, 0], "prefix_value": parts[:, i, 1]}
        for i, place in zip(pairs, places, strict=True)
    }


def _by_number(path: str) -> list[tuple[int, str]]:
    """Sorts block 10 behind block 9."""
    return [(int(x), "") if x.isdecimal() else (-1, x) for x in path.split("/")]
