# SPDX-License-Identifier: Apache-2.0
"""What transforms keep in an optimizer's state, and what they need at an update."""

from typing import Any

import jax

from jft.types import InputError, Params


def find_states(opt_state: Any, kind: type) -> list[Any]:
    """List the states of one type anywhere within an optimizer state.

    >>> import optax
    >>> state = optax.chain(optax.scale(2.0), optax.trace(0.9)).init({"w": 1.0})
    >>> [type(x).__name__ for x in find_states(state, optax.TraceState)]
    ['TraceState']
    """
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, kind))
    return [leaf for leaf in leaves if isinstance(leaf, kind)]


def check_params(params: Params) -> None:
    """Refuse an update without the parameters that it is measured against."""
    if params is None:
        raise InputError(
            "this optimizer reads the parameters and got none; call "
            "tx.update(grads, opt_state, params)."
        )
