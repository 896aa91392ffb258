# SPDX-License-Identifier: Apache-2.0
"""Which parameters to evaluate and export: not always those being trained."""

from typing import Any

import jax.numpy as jnp
import optax.contrib

from jft import paths
from jft.optim.averages import AverageState
from jft.optim.sam import SamState
from jft.optim.states import find_states
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

    Example:
      >>> from jft.optim import track_ema
      >>> tx, params = track_ema(0.5), {"w": jnp.array(1.0)}
      >>> _, state = tx.update({"w": jnp.array(2.0)}, tx.init(params), params)
      >>> float(eval_params(state, {"w": jnp.array(3.0)})["w"])
      2.0
    """
    if found := find_states(opt_state, AverageState):
        any_point = found[0].num_points > 0
        return paths.map_where(
            lambda _, p, mean: jnp.where(any_point, mean.astype(p.dtype), p),
            trainable,
            found[0].average,
        )
    if found := find_states(opt_state, SamState):
        displaced = found[0].step % 2 == 1
        return paths.map_where(
            lambda _, p, origin: jnp.where(displaced, origin, p),
            trainable,
            found[0].origin,
        )
    if found := find_states(opt_state, optax.contrib.ScheduleFreeState):
        b1 = found[0].b1
        return paths.map_where(
            lambda _, y, z: (y - (1 - b1).astype(y.dtype) * z) / b1.astype(y.dtype),
            trainable,
            found[0].z,
        )
    return trainable
