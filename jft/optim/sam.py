# SPDX-License-Identifier: Apache-2.0
"""Sharpness-aware minimization: every second step moves, the other one looks around.

``optax.contrib.sam`` takes the same steps, but takes no extra arguments and halves the
schedule.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jft.types import Params


class SamState(NamedTuple):
    """Updates so far (after an odd number: displaced), from where, the outer state."""

    step: jax.Array  # []
    origin: Params
    outer: Any


def sam(
    outer: optax.GradientTransformation, *, rho: float
) -> optax.GradientTransformationExtraArgs:
    """Wrap a complete optimizer so that it uses gradients taken uphill.

    Even steps climb, ``w + rho * g / ||g||``; odd steps return to ``w`` and take the
    outer optimizer's step with the gradient found up there. So one outer step costs
    two gradients, from two batches where the batch changes. Foret et al. 2021.

    Args:
      outer: the whole optimizer, with sign and learning rate.
      rho: length of the climb.

    Returns:
      The transform; after an odd number of updates ``SamState.origin`` holds the
      parameters to evaluate.
    """
    outer = optax.with_extra_args_support(outer)

    def init_fn(params: Params) -> SamState:
        return SamState(jnp.zeros((), jnp.int32), params, outer.init(params))

    def update_fn(
        updates: Any, state: SamState, params: Params = None, **extra_args: Any
    ) -> tuple[Any, SamState]:
        # The schedule of the outer optimizer runs on training steps, two a move.
        outer_args = {"step": state.step} | extra_args

        def climb(grads: Any, state: SamState) -> tuple[Any, SamState]:
            norm = optax.tree.norm(grads)
            length = jnp.where(norm > 0, rho / norm, 0.0)
            ascent = jax.tree.map(lambda g: g * length.astype(g.dtype), grads)
            return ascent, SamState(state.step + 1, params, state.outer)

        def descend(grads: Any, state: SamState) -> tuple[Any, SamState]:
            moves, inner = outer.update(grads, state.outer, state.origin, **outer_args)
            moves = jax.tree.map(
                lambda u, o, p: (o - p) + u.astype(p.dtype), moves, state.origin, params
            )
            return moves, SamState(state.step + 1, state.origin, inner)

        return jax.lax.cond(state.step % 2 == 1, descend, climb, updates, state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
