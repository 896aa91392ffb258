# SPDX-License-Identifier: Apache-2.0
"""What a ViT's config.json says, checked, and the published sizes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jft.models.activations import ACTIVATIONS
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
    defaults = ViTConfig()
    values = {
        name: _checked(name, config[name], like=getattr(defaults, name))
        for name in ViTConfig.__dataclass_fields__
        if name in config
    }
    if "id2label" in config:
        values["num_labels"] = len(config["id2label"])
    result = ViTConfig(**values)
    _check_fit(result)
    return result


def _checked(name: str, value: Any, *, like: Any) -> Any:
    """Return ``value`` in the type of the default ``like``, or say what is wrong."""
    if isinstance(like, tuple):
        pair = [value, value] if isinstance(value, int) else value
        fits = isinstance(pair, list | tuple) and len(pair) == 2
        if fits and all(type(size) is int and size > 0 for size in pair):
            return tuple(pair)
        expected = "a positive integer or two of them (height, width)"
    elif isinstance(like, bool):
        if isinstance(value, bool):
            return value
        expected = "true or false"
    elif isinstance(like, int):
        if type(value) is int and value > 0:
            return value
        expected = "a positive integer"
    elif isinstance(like, float):
        if type(value) in (int, float) and value >= 0:
            return float(value)
        expected = "a number of at least 0"
    else:
        if value in ACTIVATIONS:
            return value
        expected = f"one of {sorted(ACTIVATIONS)}"
    raise InputError(f"config.json: {name} is {value!r}; it must be {expected}.")


def _check_fit(config: ViTConfig) -> None:
    """Refuse fields that are fine alone and wrong together."""
    if config.hidden_size % config.num_attention_heads:
        raise InputError(
            f"config.json: hidden_size is {config.hidden_size}, which does not divide "
            f"into num_attention_heads = {config.num_attention_heads} equal heads."
        )
    if 0 in config.grid:
        raise InputError(
            f"config.json: patch_size {config.patch_size} is larger than image_size "
            f"{config.image_size}; no whole patch fits."
        )
    if not config.num_labels:
        raise InputError(
            "config.json: id2label is empty, so there is no class to predict; "
            "give the names of the classes."
        )
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        if getattr(config, name) >= 1:
            raise InputError(
                f"config.json: {name} is {getattr(config, name)}; it must be below 1."
            )


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
