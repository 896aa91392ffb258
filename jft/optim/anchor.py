# SPDX-License-Identifier: Apache-2.0
"""L2-SP: pull parameters towards where they started, not towards zero."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jft import paths
from jft.types import Params


class AnchorState(NamedTuple):
    """The starting point of every anchored leaf; None elsewhere."""

    anchor: Params


def l2_sp(
    strength: float, anchor_mask: Callable[[str, Any], bool] | None = None
) -> optax.GradientTransformation:
    """Add ``strength * (p - p0)`` to the updates, ``p0`` the parameters at ``init``.

    Decoupled, as AdamW's weight decay is: placed after the moments and multiplied by
    the learning rate once. The state is one copy of the anchored leaves.
    Li, Grandvalet and Davoine 2018, "Explicit inductive bias for transfer learning".

    Args:
      strength: the penalty's weight (alpha of the paper).
      anchor_mask: ``(path, leaf) -> bool``, which leaves to anchor; None is all.
        A newly drawn head has no pre-trained value to return to: leave it out.

    Returns:
      The transform; ``update`` needs ``params``.

    Example:
      >>> tx = l2_sp(0.5)
      >>> state = tx.init({"w": jnp.array(1.0)})
      >>> updates = {"w": jnp.array(0.0)}
      >>> float(tx.update(updates, state, {"w": jnp.array(3.0)})[0]["w"])
      1.0
    """

    def init_fn(params: Params) -> AnchorState:
        def keep(path: str, leaf: Any) -> jax.Array | None:
            anchored = anchor_mask is None or anchor_mask(path, leaf)
            # A copy: state and parameters are both donated, so never one buffer.
            return jnp.array(leaf, copy=True) if anchored else None

        return AnchorState(paths.map_with_path(keep, params))

    def update_fn(
        updates: Any, state: AnchorState, params: Params = None
    ) -> tuple[Any, AnchorState]:
        anchors, now = paths.flatten(state.anchor), paths.flatten(params)

        def pull(path: str, update: Any) -> Any:
            if path not in anchors:
                return update
            return update + strength * (now[path] - anchors[path])

        return paths.map_with_path(pull, updates), state

    return optax.GradientTransformation(init_fn, update_fn)
