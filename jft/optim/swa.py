# SPDX-License-Identifier: Apache-2.0
"""Stochastic weight averaging: the plain mean of points along the end of a run."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jft import paths
from jft.types import InputError, Params


class SwaState(NamedTuple):
    """The mean so far, in float32 or wider, and of how many points it is."""

    step: jax.Array  # int32 [], updates seen
    num_points: jax.Array  # int32 [], of the mean
    mean: Params  # the start while there is no point


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
      ``step`` where there is one. Read it with ``eval_params``.

    Raises:
      InputError: if ``start`` is negative or ``every`` is not positive.

    Example:
      >>> tx, params = track_swa(0, 1), {"w": jnp.array(0.0)}
      >>> state = tx.init(params)
      >>> for move in (1.0, 3.0):
      ...     _, state = tx.update({"w": jnp.array(move)}, state, params)
      >>> float(swa_params(state, params)["w"])
      2.0
    """
    if start < 0 or every < 1:
        raise InputError(
            f"SWA starts at step {start} and takes a point every {every} steps; "
            "expected a start of 0 or more and 1 or more steps."
        )

    def init_fn(params: Params) -> SwaState:
        def wide(leaf: Any) -> jax.Array:
            # A copy: state and parameters are both donated, so never one buffer.
            dtype = leaf.dtype if leaf.dtype.itemsize >= 4 else jnp.float32
            return jnp.array(leaf, dtype=dtype, copy=True)

        zero = jnp.zeros((), jnp.int32)
        mean = jax.tree.map(wide, params)
        return SwaState(zero, jnp.zeros((), jnp.int32), mean)

    def update_fn(
        updates: Any,
        state: SwaState,
        params: Params = None,
        *,
        step: Any = None,
        **extra_args: Any,
    ) -> tuple[Any, SwaState]:
        del extra_args
        moves, now = paths.flatten(updates), paths.flatten(params)
        taken = (state.step if step is None else step) + 1  # with this one
        due = (taken > start) & ((taken - start - 1) % every == 0)
        share = jnp.where(due, 1.0 / (state.num_points + 1).astype(jnp.float32), 0.0)

        def average(path: str, mean: Any) -> Any:
            new = now[path].astype(mean.dtype)
            if path in moves:
                new = new + moves[path].astype(mean.dtype)
            return mean + share.astype(mean.dtype) * (new - mean)

        mean = paths.map_with_path(average, state.mean)
        count = state.num_points + due.astype(jnp.int32)
        return updates, SwaState(state.step + 1, count, mean)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def swa_params(state: SwaState, trainable: Params) -> Params:
    """Read the mean back; while there is no point, the parameters themselves.

    Args:
      state: of `track_swa`.
      trainable: the current parameters, whose structure and dtypes it takes.

    Returns:
      Parameters to evaluate with.
    """
    means = paths.flatten(state.mean)

    def read(path: str, leaf: Any) -> Any:
        if path not in means:
            return leaf
        return jnp.where(state.num_points > 0, means[path].astype(leaf.dtype), leaf)

    return paths.map_with_path(read, trainable)
