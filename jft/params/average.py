# SPDX-License-Identifier: Apache-2.0
"""Several models of one shape in one: points between two, and averages of many."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from jft.params.init import matches_any
from jft.paths import flatten, map_with_path
from jft.types import InputError, Params


def interpolate(
    params0: Params, params1: Params, alpha: float, *, keep: Sequence[str] = ()
) -> Params:
    """Take the point ``(1 - alpha) * params0 + alpha * params1`` between two models.

    With the pre-trained model first and the fine-tuned one second that is WiSE-FT:
    Wortsman et al. 2021, "Robust fine-tuning of zero-shot models", arXiv 2109.01903.
    A new head has nothing to be mixed with: name its paths in ``keep``, and leave the
    head of the first model's own task aside, as `jft.evals.set_head_aside` does.

    Args:
      params0: where ``alpha`` is 0; leaves that ``params1`` lacks are left out.
      params1: where it is 1; half precision is mixed in float32.
      alpha: from 0 to 1.
      keep: regexes of paths, matched in full, that stay as in ``params1``.

    Returns:
      A tree like ``params1``.

    Raises:
      InputError: if ``alpha`` is not in [0, 1], or a leaf that is not kept is absent
        from ``params0`` or has another shape there.

    Example:
      >>> import numpy as np
      >>> old, new = {"body": np.zeros(1)}, {"body": np.ones(1), "head": np.ones(2)}
      >>> interpolate(old, new, 0.25, keep=["head"])["body"].tolist()
      [0.25]
    """
    if not 0 <= alpha <= 1:
        raise InputError(
            f"alpha is {alpha}; expected a number from 0, the first model, to 1, the "
            "second."
        )
    first = flatten(params0)
    mixed = [path for path in flatten(params1) if not matches_any(keep, path)]
    check_alike(first, flatten(params1), mixed)

    def mix(path: str, leaf: Any) -> Any:
        if matches_any(keep, path):
            return leaf
        return weighted_sum(first[path], 1 - alpha, leaf, alpha)

    return map_with_path(mix, params1)


def weighted_sum(x: Any, x_weight: float, y: Any, y_weight: float) -> Any:
    """``x_weight * x + y_weight * y`` in at least float32, in the dtype of ``y``."""
    wide = y.dtype if y.dtype.itemsize >= 4 else jnp.float32
    total = x_weight * jnp.asarray(x, wide) + y_weight * jnp.asarray(y, wide)
    return total.astype(y.dtype)


def check_alike(
    first: dict[str, Any], second: dict[str, Any], shared: Sequence[str]
) -> None:
    """Refuse paths that two models do not both have, in one shape."""
    absent = [path for path in shared if path not in first]
    other = {
        path: (first[path].shape, second[path].shape)
        for path in shared
        if path in first and first[path].shape != second[path].shape
    }
    if absent or other:
        raise InputError(
            "the models are not alike, so that their weights cannot be mixed. Only in "
            f"the second: {sorted(absent)[:5]}. Of other shapes (first, second): "
            f"{dict(sorted(other.items())[:5])}. Give models with one base and the "
            "same classes; keep heads of different tasks apart."
        )
