# SPDX-License-Identifier: Apache-2.0
"""An exponential moving average of the trainable parameters, kept by the optimizer."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jft import paths
from jft.types import InputError, Params


class EmaState(NamedTuple):
    """The averaged parameters, in float32 or wider."""

    ema: Params


def track_ema(decay: float) -> optax.GradientTransformation:
    """Average the parameters over steps; pass updates on unchanged.

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
      >>> float(ema_params(state, params)["w"])
      2.0
    """
    if not 0 <= decay < 1:
        raise InputError(
            f"EMA decay is {decay}; expected a number in [0, 1), say 0.999"
        )

    def init_fn(params: Params) -> EmaState:
        def start(leaf: Any) -> jax.Array:
            # A copy: state and parameters are both donated, so never one buffer.
            dtype = leaf.dtype if leaf.dtype.itemsize >= 4 else jnp.float32
            return jnp.array(leaf, dtype=dtype, copy=True)

        return EmaState(jax.tree.map(start, params))

    def update_fn(
        updates: Any, state: EmaState, params: Params = None
    ) -> tuple[Any, EmaState]:
        moves, now = paths.flatten(updates), paths.flatten(params)

        def average(path: str, ema: Any) -> Any:
            new = now[path].astype(ema.dtype)
            if path in moves:
                new = new + moves[path].astype(ema.dtype)
            return ema + (1 - decay) * (new - ema)

        return updates, EmaState(paths.map_with_path(average, state.ema))

    return optax.GradientTransformation(init_fn, update_fn)


def ema_params(opt_state: Any, trainable: Params) -> Params:
    """Read the average back, in the structure and dtypes of ``trainable``.

    Args:
      opt_state: the state of any chain that contains ``track_ema``.
      trainable: the current parameters; leaves without average keep their value.

    Returns:
      Parameters to evaluate with.

    Raises:
      InputError: if the state holds no average.
    """
    states = find_states(opt_state, EmaState)
    if not states:
        raise InputError(
            "this optimizer state has no EMA; make the optimizer with ema_decay."
        )
    averages = paths.flatten(states[0].ema)

    def read(path: str, leaf: Any) -> Any:
        return averages[path].astype(leaf.dtype) if path in averages else leaf

    return paths.map_with_path(read, trainable)


def find_states(opt_state: Any, kind: type) -> list[Any]:
    """List the states of one type anywhere within an optimizer state."""
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, kind))
    return [leaf for leaf in leaves if isinstance(leaf, kind)]
