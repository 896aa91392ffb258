# SPDX-License-Identifier: Apache-2.0
"""Clipping by the global norm, as one factor of all gradients.

Pascanu et al. 2013, "On the difficulty of training recurrent neural networks", arXiv
1211.5063.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jft.types import Params


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """Scale all updates down to a norm of at most ``max_norm``.

    What optax's own does, by a product where that has a quotient: XLA computes a
    product anew in each of Adam's three passes over a leaf, and a quotient in a pass of
    its own, which it writes to memory.

    >>> updates, _ = clip_by_global_norm(1.0).update({"w": jnp.array([3.0, 4.0])}, None)
    >>> [round(float(x), 4) for x in updates["w"]]
    [0.6, 0.8]
    """

    def update_fn(updates: Any, state: Any, params: Params = None) -> tuple[Any, Any]:
        del params
        norm = optax.tree.norm(updates)
        factor = jnp.where(norm > max_norm, max_norm / norm, 1.0)
        return jax.tree.map(lambda u: u * factor.astype(u.dtype), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update_fn)
