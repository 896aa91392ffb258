# SPDX-License-Identifier: Apache-2.0
"""DeBERTa's config, and how it numbers distances.

Names and defaults are transformers' own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jft.models.bert_config import BertConfig
from jft.models.fields import check_heads, check_token_id, read_fields
from jft.types import InputError


@dataclass(frozen=True, kw_only=True)
class DebertaV2Config(BertConfig):
    """The fields of config.json that change the arithmetic, with its defaults."""

    vocab_size: int = 128100
    hidden_size: int = 1536
    num_hidden_layers: int = 24
    num_attention_heads: int = 24
    intermediate_size: int = 6144
    type_vocab_size: int = 0
    layer_norm_eps: float = 1e-7
    embedding_size: int | None = None  # None: hidden_size
    position_biased_input: bool = True  # positions are added to the words
    relative_attention: bool = False
    max_relative_positions: int = -1  # below 1: max_position_embeddings
    position_buckets: int = -1  # below 1: one row a distance
    pos_att_type: str | tuple[str, ...] | None = None
    share_att_key: bool = False  # distances go through the words' products
    norm_rel_ebd: str = "none"
    conv_kernel_size: int = 0  # 0: no convolution beside the first block
    conv_groups: int = 1
    conv_act: str = "tanh"
    pooler_dropout: float = 0.0
    pooler_hidden_act: str = "gelu"
    cls_dropout: float | None = None  # None: hidden_dropout_prob
    legacy: bool = True  # which names the masked-word head has

    @property
    def word_width(self) -> int:
        """The width of a row of the embedding."""
        return self.embedding_size or self.hidden_size

    @property
    def head_dropout(self) -> float:
        """The rate before the classifier of texts."""
        rate = self.cls_dropout
        return self.hidden_dropout_prob if rate is None else rate

    @property
    def terms(self) -> tuple[str, ...]:
        """The products with positions: of "c2p" and "p2c"."""
        given = self.pos_att_type or ()
        if isinstance(given, str):
            return tuple(word.strip() for word in given.lower().split("|"))
        return given

    @property
    def normed(self) -> bool:
        """Whether the table of distances is normed."""
        return self.norm_rel_ebd == "layer_norm"

    @property
    def max_distance(self) -> int:
        """The longest distance that is told from longer ones."""
        given = self.max_relative_positions
        return self.max_position_embeddings if given < 1 else given

    @property
    def span(self) -> int:
        """Rows of the table on each side of distance 0."""
        buckets = self.position_buckets
        return buckets if buckets > 0 else self.max_distance

    def rows_of_distances(self, length: int) -> np.ndarray:
        """Return the table's row for each distance from ``1 - L`` to ``L - 1``."""
        distance = np.arange(1 - length, length)
        if self.position_buckets > 0:
            distance = bucket(distance, self.position_buckets, self.max_distance)
        return np.clip(distance + self.span, 0, 2 * self.span - 1)


def bucket(distance: np.ndarray, buckets: int, max_distance: int) -> np.ndarray:
    """Number distances: near ones each for itself, far ones by their logarithm.

    In float32, as the checkpoints were trained: some edges fall on whole numbers.

    >>> bucket(np.array([-20, -2, 0, 3, 4, 5, 9, 15]), 8, 16)
    array([-8, -2,  0,  3,  4,  5,  6,  7])
    """
    middle = buckets // 2
    far = np.maximum(np.abs(distance), middle).astype(np.float32) / np.float32(middle)
    longest = np.log(np.float32((max_distance - 1) / middle))
    logs = np.ceil(np.log(far) / longest * np.float32(middle - 1)) + np.float32(middle)
    signed = (logs * np.sign(distance)).astype(distance.dtype)
    return np.where(np.abs(distance) <= middle, distance, signed)


def config_from_dict(config: Mapping[str, Any]) -> DebertaV2Config:
    """Read config.json.

    Raises:
      InputError: names the field whose value this model cannot honour.
    """
    result = read_fields(
        DebertaV2Config, config, choices={"norm_rel_ebd": ("none", "layer_norm")}
    )
    width, num_heads = result.hidden_size, result.num_attention_heads
    check_heads("hidden_size", width, "num_attention_heads", num_heads)
    check_token_id("pad_token_id", result.pad_token_id, result.vocab_size)
    buckets, kernel = result.position_buckets, result.conv_kernel_size
    head_width, most = width // num_heads, 2 * (result.max_distance - 1)
    for name, fits, expected in (
        ("pos_att_type", {*result.terms} <= {"c2p", "p2c"}, "made of c2p and p2c"),
        (
            "norm_rel_ebd",
            result.relative_attention or not result.normed,
            "none without relative_attention",
        ),
        ("position_buckets", buckets < 1 or 1 < buckets < most, f"2 to {most - 1}"),
        ("conv_kernel_size", kernel == 0 or kernel % 2 == 1, "0 or odd"),
        ("conv_groups", width % result.conv_groups == 0, f"a divisor of {width}"),
        (
            "legacy",
            result.legacy or result.word_width == width,
            "true, or embedding_size that of hidden_size",
        ),
        (
            "attention_head_size",
            config.get("attention_head_size", head_width) == head_width,
            f"hidden_size / num_attention_heads = {head_width}",
        ),
        (
            "pooler_hidden_size",
            config.get("pooler_hidden_size", width) == width,
            f"hidden_size = {width}",
        ),
    ):
        if not fits:
            raise InputError(
                f"config.json: {name} is {config[name]!r}; it must be {expected}."
            )
    return result
