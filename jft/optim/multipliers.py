# SPDX-License-Identifier: Apache-2.0
"""Per-group learning rates: a label's updates times its multiplier."""

from collections.abc import Mapping
from typing import Any

import jax
import optax

from jft import paths
from jft.types import FROZEN, InputError, ParamLabels, Params


def scale_by_label(
    multipliers: Mapping[str, float], param_labels: ParamLabels
) -> optax.GradientTransformation:
    """Scale each update by the multiplier of its label; labels not named keep 1.

    ULMFiT's discriminative rates or a bigger head rate; stateless, after the moments.

    Args:
      multipliers: label to learning-rate multiplier.
      param_labels: one string a leaf, same structure as the parameters.

    Returns:
      The transform.

    Raises:
      InputError: if a multiplier's name is no label of a trainable parameter.

    Example:
      >>> tx = scale_by_label({"head": 10.0}, {"a": "body", "b": "head"})
      >>> tx.update({"a": 1.0, "b": 1.0}, optax.EmptyState())[0]
      {'a': 1.0, 'b': 10.0}
    """
    labels = set(jax.tree.leaves(param_labels)) - {FROZEN}
    if unknown := multipliers.keys() - labels:
        raise InputError(
            f"multipliers for {sorted(unknown)}, but the trainable labels are "
            f"{sorted(labels)}. Name labels of param_labels."
        )
    label_of = paths.flatten(param_labels)

    def scale(path: str, update: Any) -> Any:
        label = label_of[path]
        return update * multipliers[label] if label in multipliers else update

    def update_fn(
        updates: Any, state: optax.EmptyState, params: Params = None
    ) -> tuple[Any, optax.EmptyState]:
        del params
        return paths.map_with_path(scale, updates), state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update_fn)
