# SPDX-License-Identifier: Apache-2.0
"""Rotary positions: pairs of a head's dimensions turn by an angle a position.

Su et al. 2021, "RoFormer", arXiv 2104.09864. The scaling types are transformers':
``linear`` (positions divided), ``dynamic`` (NTK-aware, by the longest position seen),
``yarn`` (Peng et al. 2023, arXiv 2309.00071), ``llama3`` (Llama 3.1's wavelengths) and
``longrope`` (Ding et al. 2024, arXiv 2402.13753).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jft.types import InputError


@dataclass(frozen=True, kw_only=True)
class Rope:
    """How fast each pair turns; made by `read_rope`."""

    width: int  # dimensions of a head that turn, the first ones
    theta: float  # base of the wavelengths
    kind: str = "default"
    max_positions: int  # max_position_embeddings of the config
    options: Mapping[str, Any] = field(default_factory=dict)  # of the scaling type

    def __hash__(self) -> int:
        return hash((self.width, self.theta, self.kind, self.max_positions))


def read_rope(
    config: Mapping[str, Any],
    *,
    head_width: int,
    max_positions: int,
    theta: float = 10_000.0,
    partial: float = 1.0,
    layer_type: str | None = None,
) -> Rope:
    """Read the rotary settings of a config.json, as transformers 5 or 4 wrote them.

    transformers 5 has ``rope_parameters``; before there were ``rope_theta`` and
    ``rope_scaling``, and some families had names of their own, which they give here as
    ``theta`` and ``partial``.

    Args:
      config: config.json.
      head_width: dimensions of a head.
      max_positions: ``max_position_embeddings``.
      theta: the base where the config has none.
      partial: share of a head that turns, where the config does not say.
      layer_type: the key of this kind of layer in a nested ``rope_parameters``.

    Raises:
      InputError: names the scaling type or option that is not known or missing.
    """
    given: Mapping[str, Any] = (
        config.get("rope_scaling") or config.get("rope_parameters") or {}
    )
    if layer_type is not None and layer_type in given:
        given = given[layer_type] or {}
    options = {k: v for k, v in given.items() if not isinstance(v, Mapping)}
    kind = options.pop("rope_type", None) or options.pop("type", None) or "default"
    options.pop("type", None)
    kind = {"su": "longrope", "mrope": "default"}.get(kind, kind)
    theta = options.pop("rope_theta", config.get("rope_theta") or theta)
    partial = options.pop(
        "partial_rotary_factor", config.get("partial_rotary_factor") or partial
    )
    if kind != "default" and kind not in _FREQUENCIES:
        raise InputError(
            f"config.json: rope_type is {kind!r}; it must be one of "
            f"{['default', *sorted(_FREQUENCIES)]}."
        )
    if "original_max_position_embeddings" in config:  # Phi-3 keeps it outside
        options["original_max_position_embeddings"] = config[
            "original_max_position_embeddings"
        ]
    options.setdefault("original_max_position_embeddings", max_positions)
    missing = [name for name in _NEEDED.get(kind, ()) if options.get(name) is None]
    if missing:
        raise InputError(
            f"config.json: rope_parameters of type {kind!r} lack {missing}; the "
            "checkpoint's own config.json has them."
        )
    return Rope(
        width=int(head_width * partial),
        theta=float(theta),
        kind=kind,
        max_positions=max_positions,
        options=options,
    )


def rotary_tables(rope: Rope, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine of every angle.

    Args:
      rope: how fast each pair turns.
      positions: int ``[B or 1, L]``.

    Returns:
      Two float32 arrays ``[B or 1, L, width / 2]``.
    """
    frequencies, factor = _FREQUENCIES.get(rope.kind, _default)(rope, positions)
    angles = positions[..., None].astype(jnp.float32) * frequencies[None, None]
    return jnp.cos(angles) * factor, jnp.sin(angles) * factor


def rotate(x: jax.Array, tables: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Turn the first dimensions of each head of ``[B, L, H, K]``; the rest stays.

    Dimension i pairs with i + width / 2, as in Hugging Face checkpoints.
    """
    cos, sin = (table[:, :, None].astype(x.dtype) for table in tables)
    half = cos.shape[-1]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    turned = (first * cos - second * sin, second * cos + first * sin)
    return jnp.concatenate([*turned, rest], axis=-1)


Frequencies = tuple[Any, float]  # [width / 2] radians a position, factor of the tables


def _inverse(rope: Rope, theta: Any = None) -> Any:
    steps = np.arange(0, rope.width, 2, dtype=np.float32) / np.float32(rope.width)
    if theta is None:
        return 1.0 / np.float32(rope.theta) ** steps
    return 1.0 / theta ** jnp.asarray(steps)


def _default(rope: Rope, positions: jax.Array) -> Frequencies:
    return jnp.asarray(_inverse(rope)), 1.0


def _linear(rope: Rope, positions: jax.Array) -> Frequencies:
    return jnp.asarray(_inverse(rope) / rope.options["factor"], jnp.float32), 1.0


def _dynamic(rope: Rope, positions: jax.Array) -> Frequencies:
    factor = rope.options["factor"]
    longest = jnp.maximum(positions.max() + 1, rope.max_positions).astype(jnp.float32)
    stretch = factor * longest / rope.max_positions - (factor - 1)
    theta = rope.theta * stretch ** (rope.width / (rope.width - 2))
    return _inverse(rope, theta), 1.0


def _llama3(rope: Rope, positions: jax.Array) -> Frequencies:
    opts = rope.options
    plain = _inverse(rope)
    turns = opts["original_max_position_embeddings"] * plain / (2 * math.pi)
    low, high = opts["low_freq_factor"], opts["high_freq_factor"]
    # above `high` turns in the original context: as it was; below `low`: divided
    share = np.clip((turns - low) / (high - low), 0.0, 1.0)
    mixed = (1 - share) * plain / opts["factor"] + share * plain
    return jnp.asarray(mixed, jnp.float32), 1.0


def _yarn(rope: Rope, positions: jax.Array) -> Frequencies:
    opts, plain = rope.options, _inverse(rope)
    original = opts["original_max_position_embeddings"]
    factor = float(opts.get("factor") or rope.max_positions / original)

    def pair_of(turns: float) -> float:  # the pair that turns so often in all
        wavelength = original / (turns * 2 * math.pi)
        return rope.width * math.log(wavelength) / (2 * math.log(rope.theta))

    low = pair_of(float(opts.get("beta_fast") or 32))
    high = pair_of(float(opts.get("beta_slow") or 1))
    if opts.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.width - 1)
    pairs = np.arange(rope.width // 2, dtype=np.float32)
    ramp = np.clip((pairs - low) / ((high - low) or 0.001), 0.0, 1.0)
    mixed = plain / factor * ramp + plain * (1 - ramp)
    scale = opts.get("attention_factor")
    if scale is None:
        mscale, all_dim = opts.get("mscale"), opts.get("mscale_all_dim")
        scale = _yarn_scale(factor, float(mscale) if mscale and all_dim else 1.0)
        if mscale and all_dim:
            scale /= _yarn_scale(factor, float(all_dim))
    return jnp.asarray(mixed, jnp.float32), float(scale)


def _yarn_scale(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def _longrope(rope: Rope, positions: jax.Array) -> Frequencies:
    opts = rope.options
    original = opts["original_max_position_embeddings"]
    factor = opts.get("factor") or rope.max_positions / original
    scale = opts.get("attention_factor")
    if scale is None:
        grown = max(math.log(factor), 0.0) / math.log(original)
        scale = math.sqrt(1 + grown)
    plain = _inverse(rope)
    long, short = (
        jnp.asarray(plain / np.asarray(opts[name], np.float32))
        for name in ("long_factor", "short_factor")
    )
    return jnp.where(positions.max() + 1 > original, long, short), float(scale)


_FREQUENCIES: Mapping[str, Callable[[Rope, jax.Array], Frequencies]] = {
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "longrope": ("long_factor", "short_factor"),
}
