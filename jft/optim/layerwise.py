# SPDX-License-Identifier: Apache-2.0
"""Layer-wise learning-rate decay: deeper layers move slower, one stateless transform.

With ``d`` the decay, ``n`` the number of blocks and ``L = layer_index(path)``
(embeddings 0, block i is i+1, head n+1), a 12-block ViT gets:

========  ==========  ==============  ==========  ====
preset    embeddings  block i         final norm  head
========  ==========  ==============  ==========  ====
timm      d^13        d^(12-i)        d^1         1
beit      d^13        d^(12-i)        1           1
electra   d^14        d^(13-i)        d^2         1
ulmfit    2.6^-13     2.6^-(12-i)     2.6^-1      1
========  ==========  ==============  ==========  ====
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

import optax

from jft import paths
from jft.types import InputError, LayerIndex, Params

ULMFIT_DECAY = 1 / 2.6  # Howard and Ruder 2018, section 3.2


def _timm_exponent(layer: int, num_layers: int) -> int:
    return num_layers + 1 - layer


def _electra_exponent(layer: int, num_layers: int) -> int:
    # As shipped (and used for the published results): the last block already has d^2.
    return 0 if layer == num_layers + 1 else num_layers + 2 - layer


# preset -> (layer, num_layers) -> power of the decay
PRESETS: dict[str, Callable[[int, int], int]] = {
    "timm": _timm_exponent,
    "beit": _timm_exponent,  # and the final norm at 1, see layer_multiplier
    "electra": _electra_exponent,
    "ulmfit": _timm_exponent,  # and a decay of 1/2.6 by default
}


def layer_multiplier(
    decay: float | None,
    layer_index: LayerIndex,
    *,
    num_layers: int,
    preset: str = "timm",
    final_norm: str | None = None,
) -> Callable[[str], float]:
    """Make the function from a parameter's path to its learning-rate multiplier.

    Args:
      decay: what each layer loses against the one above; None only with the preset
        "ulmfit", where it means 1/2.6.
      layer_index: path to depth, 0 (embeddings) to ``num_layers`` + 1 (head).
      num_layers: number of blocks, embeddings and head not counted.
      preset: a key of ``PRESETS``.
      final_norm: regex of the norm after the last block; only "beit" reads it.

    Returns:
      A function of a path; it raises InputError for a depth out of range.

    Raises:
      InputError: if the preset is unknown or lacks its decay or final norm.

    Example:
      >>> multiplier = layer_multiplier(0.5, {"embed": 0, "head": 3}.get, num_layers=2)
      >>> multiplier("embed"), multiplier("head")
      (0.125, 1.0)
    """
    if preset not in PRESETS:
        raise InputError(
            f"unknown layer-wise decay preset {preset!r}; known: {sorted(PRESETS)}."
        )
    if decay is None and preset == "ulmfit":
        decay = ULMFIT_DECAY
    if decay is None or not 0 < decay <= 1:
        raise InputError(
            f"layer-wise decay is {decay!r} with preset {preset!r}; expected a number "
            "in (0, 1], for example 0.75 (only 'ulmfit' has a decay of its own)."
        )
    if preset == "beit" and final_norm is None:
        raise InputError(
            "preset 'beit' keeps the final norm at 1 and needs to know it: give "
            "final_norm, a regex of its paths, or take preset 'timm'."
        )
    exponent = PRESETS[preset]
    final_norm_pattern = re.compile(final_norm or "") if preset == "beit" else None

    def multiplier(path: str) -> float:
        layer = layer_index(path)
        if not isinstance(layer, int) or not 0 <= layer <= num_layers + 1:
            raise InputError(
                f"layer_index gives {layer!r} for {path!r}; expected 0 (embeddings) "
                f"to {num_layers + 1} (head) for {num_layers} layers."
            )
        if final_norm_pattern and final_norm_pattern.fullmatch(path):
            return 1.0
        return float(decay ** exponent(layer, num_layers))

    return multiplier


def layerwise_lr_decay(
    decay: float | None,
    layer_index: LayerIndex,
    *,
    num_layers: int,
    preset: str = "timm",
    final_norm: str | None = None,
) -> optax.GradientTransformation:
    """Scale each update by its layer's multiplier; see ``layer_multiplier``.

    Place it after the moments: Adam cancels any scaling of its input. It has no
    state and is the same transform for all layers.

    Args:
      decay: as for ``layer_multiplier``.
      layer_index: as for ``layer_multiplier``.
      num_layers: as for ``layer_multiplier``.
      preset: as for ``layer_multiplier``.
      final_norm: as for ``layer_multiplier``.

    Returns:
      The transform. Its ``init`` raises InputError listing every path that
      ``layer_index`` does not know or puts out of range.

    Example:
      >>> index = {"embed": 0, "head": 3}.__getitem__
      >>> tx = layerwise_lr_decay(0.5, index, num_layers=2)
      >>> updates = {"embed": 8.0, "head": 8.0}
      >>> tx.update(updates, tx.init(updates))[0]
      {'embed': 1.0, 'head': 8.0}
    """
    multiplier = layer_multiplier(
        decay, layer_index, num_layers=num_layers, preset=preset, final_norm=final_norm
    )

    def init_fn(params: Params) -> optax.EmptyState:
        _check_paths(paths.flatten(params), multiplier, num_layers=num_layers)
        return optax.EmptyState()

    def update_fn(
        updates: Any, state: optax.EmptyState, params: Params = None
    ) -> tuple[Any, optax.EmptyState]:
        del params
        return paths.map_with_path(lambda path, u: u * multiplier(path), updates), state

    return optax.GradientTransformation(init_fn, update_fn)


def _check_paths(
    names: Iterable[str], multiplier: Callable[[str], float], *, num_layers: int
) -> None:
    """Raise one error that lists all paths without a valid layer."""
    bad = {}
    for path in names:
        try:
            multiplier(path)
        except (ValueError, LookupError) as error:
            bad[path] = error
    if bad:
        raise InputError(
            f"layer_index knows no layer in [0, {num_layers + 1}] for these paths: "
            f"{sorted(bad)}. Every parameter needs one; the first reason: "
            f"{next(iter(bad.values()))}"
        )
