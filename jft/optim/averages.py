# SPDX-License-Identifier: Apache-2.0
"""Averages of the trainable parameters along a run, kept by the optimizer.

`eval_params` reads them back.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jft import paths
from jft.models.arrays import at_least_float32
from jft.optim.states import check_params
from jft.types import InputError, Params


class AverageState(NamedTuple):
    """The average so far, in float32 or wider, and of how many points it is."""

    step: jax.Array  # int32 [], updates seen
    num_points: jax.Array  # int32 [], of the average
    average: Params  # the start while there is no point


def track_ema(decay: float) -> optax.GradientTransformationExtraArgs:
    """Average the parameters over steps, exponentially; pass updates on unchanged.

    ``e <- e + (1 - decay) * (p_new - e)``, from ``e = p`` at ``init``, so without a
    bias to correct; a leaf that never moves keeps its exact value. Place it last,
    where updates are final. Half-precision leaves are averaged in float32, whose
    resolution the small factor needs.

    Args:
      decay: weight of the past, for example 0.999.

    Returns:
      The transform; ``update`` needs ``params``, and updates may be None (no move).

    Raises:
      InputError: if ``decay`` is not in [0, 1).

    Example:
      >>> tx = track_ema(0.5)
      >>> params = {"w": jnp.array(1.0)}
      >>> _, state = tx.update({"w": jnp.array(2.0)}, tx.init(params), params)
      >>> float(state.average["w"])
      2.0
    """
    if not 0 <= decay < 1:
        raise InputError(
            f"EMA decay is {decay}; expected a number in [0, 1), say 0.999"
        )
    return _track(lambda taken, num_points: 1 - decay)


def track_swa(start: int, every: int) -> optax.GradientTransformationExtraArgs:
    """Average the parameters after step ``start`` and every ``every`` steps from there.

    ``mean <- (n mean + p) / (n + 1)`` with the ``n`` points before; updates pass on
    unchanged. Place it last, where updates are final. The paper runs its learning rate
    high or in cycles from ``start`` on, for points that differ: take the schedule
    "constant", or a long one that is still high there.
    Izmailov et al. 2018, "Averaging weights leads to wider optima and better
    generalization", arXiv 1803.05407. Its last step, new statistics for batch
    normalisation, has nothing to do here: no model of the package has any.

    Args:
      start: steps taken before the first point.
      every: steps between two points.

    Returns:
      The transform; ``update`` needs ``params`` and follows the extra argument
      ``step`` where there is one.

    Raises:
      InputError: if ``start`` is negative or ``every`` is not positive.

    Example:
      >>> tx, params = track_swa(0, 1), {"w": jnp.array(0.0)}
      >>> state = tx.init(params)
      >>> for move in (1.0, 3.0):
      ...     _, state = tx.update({"w": jnp.array(move)}, state, params)
      >>> float(state.average["w"])
      2.0
    """
    if start < 0 or every < 1:
        raise InputError(
            f"SWA starts at step {start} and takes a point every {every} steps; "
            "expected a start of 0 or more and 1 or more steps."
        )

    def weight(taken: Any, num_points: jax.Array) -> jax.Array:
        due = (taken > start) & ((taken - start - 1) % every == 0)
        return jnp.where(due, 1.0 / (num_points + 1).astype(jnp.float32), 0.0)

    return _track(weight)


def _track(
    weight: Callable[[Any, jax.Array], Any],
) -> optax.GradientTransformationExtraArgs:
    """Average with the newest point's weight, 0 where it is none.

    ``weight`` gets the steps taken, this one included, and the points so far.
    """

    def init_fn(params: Params) -> AverageState:
        start = jax.tree.map(lambda p: at_least_float32(jnp.asarray(p)), params)
        return AverageState(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), start)

    def update_fn(
        updates: Any,
        state: AverageState,
        params: Params = None,
        *,
        step: Any = None,
        **extra_args: Any,
    ) -> tuple[Any, AverageState]:
        del extra_args
        check_params(params)
        taken = (state.step if step is None else step) + 1
        share = weight(taken, state.num_points)

        def mix(old: jax.Array, new: jax.Array) -> jax.Array:
            return old + jnp.asarray(share, old.dtype) * (new - old)

        before = paths.flatten(params)
        now = paths.map_with_path(
            lambda path, old: before[path].astype(old.dtype), state.average
        )
        now = paths.map_where(lambda _, p, u: p + u.astype(p.dtype), now, updates)
        num_points = state.num_points + jnp.asarray(share > 0, jnp.int32)
        average = jax.tree.map(mix, state.average, now)
        return updates, AverageState(state.step + 1, num_points, average)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
