# SPDX-License-Identifier: Apache-2.0
"""How fast each parameter moves: factors of the learning rate, by path.

A multiplier is a function from a path to a number. What `jft.partition.describe` prints
of it is what `scale_by_path` applies.

Layer-wise decay: with ``d`` the decay, ``n`` the number of blocks and
``L = layer_index(path)`` (embeddings 0, block i is i+1, head n+1), a 12-block ViT gets:

========  ==========  ==============  ==========  ====
preset    embeddings  block i         final norm  head
========  ==========  ==============  ==========  ====
timm      d^13        d^(12-i)        d^1         1
beit      d^13        d^(12-i)        1           1
electra   d^14        d^(13-i)        d^2         1
ulmfit    2.6^-13     2.6^-(12-i)     2.6^-1      1
========  ==========  ==============  ==========  ====
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import optax

from jft import paths
from jft.types import FROZEN, InputError, LayerIndex, ParamLabels, Params

Multiplier: TypeAlias = Callable[[str], float]  # path -> factor of the rate

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
) -> Multiplier:
    """Layer-wise learning-rate decay: deeper layers move slower.

    Args:
      decay: what each layer loses against the one above; None is nothing, but with
        the preset "ulmfit", where it is 1/2.6.
      layer_index: path to depth, 0 (embeddings) to ``num_layers`` + 1 (head).
      num_layers: number of blocks, embeddings and head not counted.
      preset: a key of ``PRESETS``.
      final_norm: regex of the norm after the last block; only "beit" reads it.

    Returns:
      A function of a path; it raises InputError for a depth out of range.

    Raises:
      InputError: if the decay is out of range, or the preset unknown or without its
        final norm.

    Example:
      >>> multiplier = layer_multiplier(0.5, {"embed": 0, "head": 3}.get, num_layers=2)
      >>> multiplier("embed"), multiplier("head")
      (0.125, 1.0)
    """
    if preset not in PRESETS:
        raise InputError(
            f"unknown layer-wise decay preset {preset!r}; known: {sorted(PRESETS)}."
        )
    if decay is None:
        decay = ULMFIT_DECAY if preset == "ulmfit" else 1.0
    if not 0 < decay <= 1:
        raise InputError(
            f"layer-wise decay is {decay!r}; expected a number in (0, 1], for example "
            "0.75."
        )
    if preset == "beit" and final_norm is None and decay != 1:
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


def label_multiplier(
    multipliers: Mapping[str, float], param_labels: ParamLabels
) -> Multiplier:
    """Each label's own rate: ULMFiT's discriminative rates, a faster head, LoRA+.

    Args:
      multipliers: label to learning-rate multiplier; labels not named have 1.
      param_labels: one string a leaf.

    Returns:
      A function of a path.

    Raises:
      InputError: if a multiplier's name is no label of a trainable parameter.

    Example:
      >>> multiplier = label_multiplier({"head": 10.0}, {"a": "body", "b": "head"})
      >>> multiplier("a"), multiplier("b")
      (1.0, 10.0)
    """
    label_of = paths.flatten(param_labels)
    labels = set(label_of.values()) - {FROZEN}
    if unknown := multipliers.keys() - labels:
        raise InputError(
            f"multipliers for {sorted(unknown)}, but the trainable labels are "
            f"{sorted(labels)}. Name labels of param_labels."
        )
    return lambda path: multipliers.get(label_of[path], 1.0)


def product(*multipliers: Multiplier) -> Multiplier:
    """Multiply multipliers; none is 1.

    >>> product(lambda path: 0.5, {"a": 3.0}.__getitem__)("a")
    1.5
    """
    return lambda path: math.prod((of(path) for of in multipliers), start=1.0)


def scale_by_path(multiplier: Multiplier) -> optax.GradientTransformation:
    """Scale each update by the multiplier of its path.

    Place it after the moments: Adam cancels any scaling of its input. It has no state.

    Args:
      multiplier: path to factor, see `layer_multiplier` and `label_multiplier`.

    Returns:
      The transform. Its ``init`` raises InputError listing every path for which the
      multiplier fails.

    Example:
      >>> tx = scale_by_path({"embed": 0.125, "head": 1.0}.__getitem__)
      >>> updates = {"embed": 8.0, "head": 8.0}
      >>> tx.update(updates, tx.init(updates))[0]
      {'embed': 1.0, 'head': 8.0}
    """

    def init_fn(params: Params) -> optax.EmptyState:
        _check_paths(params, multiplier)
        return optax.EmptyState()

    def update_fn(
        updates: Any, state: optax.EmptyState, params: Params = None
    ) -> tuple[Any, optax.EmptyState]:
        del params

        def scale(path: str, update: Any) -> Any:
            return update * float(multiplier(path))

        return paths.map_with_path(scale, updates), state

    return optax.GradientTransformation(init_fn, update_fn)


def _check_paths(params: Params, multiplier: Multiplier) -> None:
    """Raise one error that lists all paths without a multiplier."""
    bad = {}
    for path in paths.flatten(params):
        try:
            multiplier(path)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            bad[path] = error
    if bad:
        raise InputError(
            f"the learning-rate multiplier knows nothing of these paths: {sorted(bad)}."
            " Every parameter that moves needs a factor; the first reason: "
            f"{next(iter(bad.values()))!r}"
        )
