# SPDX-License-Identifier: Apache-2.0
"""What a ViT's config.json says, checked, and the published sizes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jft.models.fields import check_heads, read_fields
from jft.types import InputError


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """The fields of config.json that change the arithmetic, with its defaults."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    image_size: tuple[int, int] = (224, 224)  # height, width
    patch_size: tuple[int, int] = (16, 16)
    num_channels: int = 3
    qkv_bias: bool = True
    num_labels: int = 2

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across; pixels beyond the last whole patch are unused."""
        (height, width), (down, across) = self.image_size, self.patch_size
        return height // down, width // across


def config_from_dict(config: Mapping[str, Any]) -> ViTConfig:
    """Read the fields that matter of a config.json, absent ones at HF's defaults.

    Raises:
      InputError: names the field whose value this model cannot honour.

    >>> config_from_dict({"image_size": 384, "id2label": {"0": "a"}}).image_size
    (384, 384)
    """
    result = read_fields(ViTConfig, config)
    heads = result.num_attention_heads
    check_heads("hidden_size", result.hidden_size, "num_attention_heads", heads)
    if 0 in result.grid:
        raise InputError(
            f"config.json: patch_size {result.patch_size} is larger than image_size "
            f"{result.image_size}; no whole patch fits."
        )
    return result


def _variant(width: int, layers: int, heads: int, patch: int) -> ViTConfig:
    return ViTConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        patch_size=(patch, patch),
        num_labels=1000,
    )


# the published sizes, at 224 pixels and 1,000 classes
VARIANTS: dict[str, ViTConfig] = {
    "Ti/16": _variant(192, 12, 3, 16),
    "S/16": _variant(384, 12, 6, 16),
    "S/32": _variant(384, 12, 6, 32),
    "B/16": _variant(768, 12, 12, 16),
    "B/32": _variant(768, 12, 12, 32),
    "L/16": _variant(1024, 24, 16, 16),
    "L/32": _variant(1024, 24, 16, 32),
    "H/14": _variant(1280, 32, 16, 14),
}
