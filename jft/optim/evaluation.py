# SPDX-License-Identifier: Apache-2.0
"""Which parameters to evaluate and export: not always those being trained."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import optax.contrib

from jft import paths
from jft.optim.ema import EmaState, ema_params, find_states
from jft.optim.sam import SamState
from jft.optim.swa import SwaState, swa_params
from jft.types import Params


def eval_params(opt_state: Any, trainable: Params) -> Params:
    """Return the parameters to evaluate and export, given those being trained.

    The average where the optimizer tracks one, of SWA from its start on; SAM's
    undisplaced point; schedule-free's averaged iterate ``(y - (1 - b1) z) / b1``;
    otherwise ``trainable`` itself. Leaves that the state does not know (frozen ones)
    keep their value.

    Args:
      opt_state: the optimizer's state.
      trainable: the current parameters.

    Returns:
      A tree like ``trainable``.
    """
    if find_states(opt_state, EmaState):
        return ema_params(opt_state, trainable)
    if found := find_states(opt_state, SwaState):
        return swa_params(found[0], trainable)
    if found := find_states(opt_state, SamState):
        displaced = found[0].step % 2 == 1
        origin = paths.flatten(found[0].origin)
        return _combine(trainable, origin, lambda p, o: jnp.where(displaced, o, p))
    if found := find_states(opt_state, optax.contrib.ScheduleFreeState):
        b1, fast = found[0].b1, paths.flatten(found[0].z)

        def average(y: Any, z: Any) -> Any:
            return (y - (1 - b1).astype(y.dtype) * z) / b1.astype(y.dtype)

        return _combine(trainable, fast, average)
    return trainable


def _combine(
    tree: Params, others: Mapping[str, Any], fn: Callable[[Any, Any], Any]
) -> Params:
    """Combine each leaf with the other of its path, where there is one."""
    return paths.map_with_path(
        lambda path, x: fn(x, others[path]) if path in others else x, tree
    )
