# SPDX-License-Identifier: Apache-2.0
"""EWC: pull each parameter back as hard as what it came from depends on it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jft import paths
from jft.models.arrays import at_least_float32
from jft.optim.anchor import keep_start
from jft.optim.states import check_params, find_states
from jft.types import InputError, Params


class EwcState(NamedTuple):
    """Of every anchored leaf the start and the Fisher information; None elsewhere."""

    anchor: Params
    fisher: Params  # in float32 or wider; 0, which pulls nothing, until it is given
    penalty: jax.Array  # float32 [], what the last update added to the loss


def ewc(
    strength: float, anchor_mask: Callable[[str, Any], bool] | None = None
) -> optax.GradientTransformation:
    """Add the gradient of ``strength / 2 * sum(F * (p - p0)**2)`` to the updates.

    ``p0`` are the parameters at ``init`` and ``F`` is the diagonal of the Fisher
    information there, which `with_fisher` puts into the state. It is a part of the
    loss, so it stands first in a chain, where gradients come in: before the clip and
    the moments. Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in neural
    networks", arXiv 1612.00796. The state is two copies of the anchored leaves, and
    the penalty itself, see `penalty_of`.

    Args:
      strength: the penalty's weight (lambda of the paper), for a loss that is a mean
        over examples and a Fisher information of one example.
      anchor_mask: ``(path, leaf) -> bool``, which leaves to anchor; None is all.

    Returns:
      The transform; ``update`` needs ``params``.

    Raises:
      InputError: for a negative strength.

    Example:
      >>> tx, start = ewc(0.5), {"w": jnp.array(1.0)}
      >>> state = with_fisher(tx.init(start), {"w": jnp.array(2.0)})
      >>> updates, _ = tx.update({"w": jnp.array(0.0)}, state, {"w": jnp.array(4.0)})
      >>> float(updates["w"])
      3.0
    """
    if strength < 0:
        raise InputError(
            f"the strength of EWC is {strength}; expected 0 or more: a negative one "
            "pushes parameters away from their start."
        )

    def init_fn(params: Params) -> EwcState:
        anchor = keep_start(params, anchor_mask or (lambda path, leaf: True))
        none = jnp.zeros((), jnp.float32)
        return EwcState(anchor, jax.tree.map(_zeros, anchor), penalty=none)

    def update_fn(
        updates: Any, state: EwcState, params: Params = None
    ) -> tuple[Any, EwcState]:
        check_params(params)
        now, fisher = paths.flatten(params), state.fisher
        gaps = paths.map_with_path(
            lambda path, start, f: (now[path] - start).astype(f.dtype),
            state.anchor,
            fisher,
        )

        def pull(path: str, update: Any, fisher: Any, gap: Any) -> Any:
            del path
            return update + (strength * fisher * gap).astype(update.dtype)

        squares = jax.tree.map(
            lambda f, gap: jnp.sum(f * gap**2).astype(jnp.float32), fisher, gaps
        )
        total = sum(jax.tree.leaves(squares), jnp.zeros((), jnp.float32))
        new_state = state._replace(penalty=strength / 2 * total)
        return paths.map_where(pull, updates, fisher, gaps), new_state

    return optax.GradientTransformation(init_fn, update_fn)


def _zeros(leaf: Any) -> jax.Array:
    return at_least_float32(jnp.zeros_like(leaf))


def penalty_of(opt_state: Any) -> jax.Array | None:
    """What EWC adds to the loss, at the parameters that the last update was given.

    Returns:
      A number; None if nothing in the state is `ewc`'s.
    """
    states = find_states(opt_state, EwcState)
    return states[0].penalty if states else None


def with_fisher(opt_state: Any, fisher: Params) -> Any:
    """Put the Fisher information into the state of any chain that contains ``ewc``.

    Args:
      opt_state: the optimizer's state; a new one is returned.
      fisher: a tree with at least the anchored leaves, such as
        `jft.train.diagonal_fisher` returns; they go where the state's own lie.

    Raises:
      InputError: if the state has no place for it, or an anchored leaf lacks it or has
        another shape there.
    """
    given, places = paths.flatten(fisher), []

    def fill(state: Any) -> Any:
        if not isinstance(state, EwcState):
            return state
        places.append(state)
        return state._replace(fisher=_filled(state.fisher, given))

    filled = jax.tree.map(fill, opt_state, is_leaf=lambda x: isinstance(x, EwcState))
    if not places:
        raise InputError(
            "this optimizer state has no place for a Fisher information; make the "
            "optimizer with ewc."
        )
    return filled


def _filled(places: Params, given: dict[str, Any]) -> Params:
    wanted = {path: leaf.shape for path, leaf in paths.flatten(places).items()}
    wrong = [p for p, s in wanted.items() if p not in given or given[p].shape != s]
    if wrong:
        raise InputError(
            f"the Fisher information lacks {sorted(wrong)}, or has another shape "
            f"there; it has {sorted(given)}. Compute it of the same model, with the "
            "labels of what is anchored."
        )
    return paths.map_with_path(
        # A copy: the state is donated, so its buffers are its own.
        lambda path, leaf: jax.device_put(
            jnp.array(given[path], leaf.dtype, copy=True), leaf.sharding
        ),
        places,
    )
