# SPDX-License-Identifier: Apache-2.0
"""A training state as the arrays of a checkpoint, and back."""

from typing import Any

import jax

from jft.train import TrainState


def state_arrays(state: TrainState, *, full: bool = False) -> dict[str, Any]:
    """List what a checkpoint keeps of a state.

    Args:
      state: the state; arrays or, for a template, ``ShapeDtypeStruct``.
      full: keep frozen leaves too; otherwise they are read again from the base.

    Returns:
      Named trees; the key as its data, which any array store can hold.
    """
    arrays = state._asdict() | {"key": jax.random.key_data(state.key)}
    if not full:
        del arrays["frozen"]
    return arrays


def with_arrays(state: TrainState, arrays: dict[str, Any]) -> TrainState:
    """Give a state the arrays that `state_arrays` listed; the rest stays."""
    key = jax.random.wrap_key_data(arrays["key"], impl=jax.random.key_impl(state.key))
    return state._replace(**(arrays | {"key": key}))
