# SPDX-License-Identifier: Apache-2.0
"""Auto-RGN: layers whose gradient is large for their size learn faster."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jft import paths
from jft.types import Group, InputError, Params


class AutoRgnState(NamedTuple):
    """Updates so far, each leaf's factor of the rate, and the state of what it scales.

    Leaves of a layer have one factor, kept with each of them.
    """

    step: jax.Array  # int32 []
    scales: Params  # scalars
    inner: Any


def auto_rgn(
    inner: optax.GradientTransformation,
    group_of: Callable[[str], Group] | None = None,
    *,
    every: int,
) -> optax.GradientTransformationExtraArgs:
    """Scale what ``inner`` gives by each layer's relative gradient norm.

    ``r_l = ||g_l|| / ||p_l||`` over all that a layer has, and its factor is ``r_l``
    over the largest of them. It is measured on the gradients that come in, so before
    any moments, at the first update and every ``every`` updates from there, and stays
    between; the paper measures at the start of each epoch (its code on five batches;
    here on the one that is trained on). A layer whose parameters are all 0 has no
    relative norm, and the factor 1. Lee et al. 2022, "Surgical fine-tuning improves
    adaptation to distribution shifts", arXiv 2210.11466.

    Args:
      inner: the direction: moments and decay, without learning rate.
      group_of: path to layer; None makes each leaf a layer of its own.
      every: updates between two measures.

    Returns:
      The transform; ``update`` needs ``params``, and a gradient for every leaf.

    Raises:
      InputError: if ``every`` is not positive.

    Example:
      >>> tx = auto_rgn(optax.identity(), every=1)
      >>> params = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([1.0])}
      >>> grads = {"a": jnp.array([1.0, 0.0]), "b": jnp.array([0.5])}
      >>> updates, _ = tx.update(grads, tx.init(params), params)
      >>> [round(float(updates[k][0]), 3) for k in "ab"]
      [0.4, 0.5]
    """
    if every < 1:
        raise InputError(
            f"Auto-RGN measures every {every} steps; expected 1 or more, for example "
            "an epoch."
        )
    of = group_of or (lambda path: path)
    inner = optax.with_extra_args_support(inner)

    def init_fn(params: Params) -> AutoRgnState:
        scales = jax.tree.map(lambda _: jnp.ones((), jnp.float32), params)
        return AutoRgnState(jnp.zeros((), jnp.int32), scales, inner.init(params))

    def update_fn(
        updates: Any, state: AutoRgnState, params: Params = None, **extra_args: Any
    ) -> tuple[Any, AutoRgnState]:
        factors = _relative_norms(updates, params, of)
        due = state.step % every == 0
        scales = paths.map_with_path(
            lambda path, old: jnp.where(due, factors[of(path)], old), state.scales
        )
        moves, inner_state = inner.update(updates, state.inner, params, **extra_args)
        by_path = paths.flatten(scales)
        scaled = paths.map_with_path(
            lambda path, u: u * by_path[path].astype(u.dtype), moves
        )
        return scaled, AutoRgnState(state.step + 1, scales, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _relative_norms(
    grads: Any, params: Params, group_of: Callable[[str], Group]
) -> dict[Group, jax.Array]:
    """Each layer's gradient norm over its parameters' norm, as part of the largest."""
    squares: dict[Group, list[jax.Array]] = {}
    now = paths.flatten(params)
    for path, grad in paths.flatten(grads).items():
        pair = jnp.stack([_square(grad), _square(now[path])])
        squares.setdefault(group_of(path), []).append(pair)
    sums = {group: sum(pairs[1:], pairs[0]) for group, pairs in squares.items()}
    known = {group: pair[1] > 0 for group, pair in sums.items()}
    ratios = {
        group: jnp.sqrt(jnp.where(known[group], pair[0] / pair[1], 0.0))
        for group, pair in sums.items()
    }
    largest = jnp.max(jnp.stack(list(ratios.values())))
    return {
        group: jnp.where(known[group] & (largest > 0), ratio / largest, 1.0)
        for group, ratio in ratios.items()
    }


def _square(leaf: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(leaf.astype(jnp.float32)))
