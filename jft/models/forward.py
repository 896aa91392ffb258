# SPDX-License-Identifier: Apache-2.0
"""A family's module as functions of parameters and a batch."""

from typing import Any

import jax
import jax.numpy as jnp

from jft.models.dropout import hashed_key
from jft.types import HIDDEN, ApplyFn, Batch, InputError, Params, PrefixFn


def make_apply_fn(module: Any) -> ApplyFn:
    """Make the forward of a family's module a function of params, batch and key.

    Returns:
      An ``ApplyFn``: dropout is active exactly when it is given a key. A batch with
      activations is taken up at their boundary.
    """

    def apply_fn(params: Params, batch: Batch, *, key: jax.Array | None) -> Any:
        start, hidden = _reached(batch)
        return _run(module, params, batch, key, hidden=hidden, start=start)

    return apply_fn


def make_prefix_fn(module: Any) -> PrefixFn:
    """Make the stages below a boundary a function of params and batch.

    Returns:
      A ``PrefixFn``; of a batch with activations it runs what is missing. With a key
      it drops out what the whole forward would with that key.
    """

    def prefix_fn(
        params: Params, batch: Batch, *, stop: int, key: jax.Array | None = None
    ) -> Batch:
        start, hidden = _reached(batch)
        if start > stop:
            raise InputError(
                f"the batch was computed up to the boundary {start}, but the layer "
                f"{stop} is open; give batches that were computed no further."
            )
        if start < stop:
            hidden = _run(
                module, params, batch, key, hidden=hidden, start=start, stop=stop
            )
        rest = {k: x for k, x in batch.items() if not k.startswith(HIDDEN)}
        return {**rest, f"{HIDDEN}{stop}": hidden} if stop else batch

    return prefix_fn


def _run(
    module: Any, params: Params, batch: Batch, key: jax.Array | None, **stages: Any
) -> Any:
    return module.apply(
        {"params": params},
        batch,
        deterministic=key is None,
        rngs=None if key is None else {"dropout": hashed_key(key)},
        **stages,
    )


def _reached(batch: Batch) -> tuple[int, Any]:
    """The boundary up to which a batch has been computed, and what came out there."""
    for name, hidden in batch.items():
        if name.startswith(HIDDEN):
            boundary = int(name.removeprefix(HIDDEN))
            return boundary, jax.tree.map(jnp.asarray, hidden)
    return 0, None
