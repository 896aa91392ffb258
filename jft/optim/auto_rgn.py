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
    """Updates so far, what was measured, and the state of what is scaled.

    Leaves of a layer have one factor, kept with each of them.
    """

    step: jax.Array  # int32 []
    scales: Params  # [], the factor of the rate
    measured: Params  # [2], the sum of relative norms, and of how many it is
    inner: Any


def auto_rgn(
    inner: optax.GradientTransformation,
    group_of: Callable[[str], Group] | None = None,
    *,
    every: int,
    batches: int = 5,
) -> optax.GradientTransformationExtraArgs:
    """Scale what ``inner`` gives by each layer's relative gradient norm.

    ``r_l = ||g_l|| / ||p_l||`` over all that a layer has, its mean is taken over
    ``batches`` batches, and the layer's factor is that mean over the largest of them.
    It is measured on the gradients that come in, so before any moments, at the first
    update and every ``every`` updates from there, and stays between. A layer whose
    parameters are all 0 has no relative norm, and the factor 1. Lee et al. 2022,
    "Surgical fine-tuning improves adaptation to distribution shifts", arXiv 2210.11466.

    The paper measures at the start of each epoch; its code takes five batches for
    that, at the same parameters, and the mean of their ratios, as here. Here they are
    those that are trained on, which costs no pass of its own: the factors of the first
    ``batches`` updates are from what is measured so far, later ones change when a
    measure is complete.

    Args:
      inner: the direction: moments and decay, without learning rate.
      group_of: path to layer; None makes each leaf a layer of its own.
      every: updates between two measures.
      batches: that a measure is the mean over; never more than ``every``.

    Returns:
      The transform; ``update`` needs ``params``, and a gradient for every leaf.

    Raises:
      InputError: if ``every`` or ``batches`` is not positive.

    Example:
      >>> tx = auto_rgn(optax.identity(), every=1)
      >>> params = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([1.0])}
      >>> grads = {"a": jnp.array([1.0, 0.0]), "b": jnp.array([0.5])}
      >>> updates, _ = tx.update(grads, tx.init(params), params)
      >>> [round(float(updates[k][0]), 3) for k in "ab"]
      [0.4, 0.5]
    """
    if every < 1 or batches < 1:
        raise InputError(
            f"Auto-RGN measures every {every} steps, on {batches} batches; expected 1 "
            "or more of both, for example an epoch and 5."
        )
    batches = min(batches, every)
    of = group_of or (lambda path: path)
    inner = optax.with_extra_args_support(inner)

    def init_fn(params: Params) -> AutoRgnState:
        scales = jax.tree.map(lambda _: jnp.ones((), jnp.float32), params)
        measured = jax.tree.map(lambda _: jnp.zeros(2, jnp.float32), params)
        step = jnp.zeros((), jnp.int32)
        return AutoRgnState(step, scales, measured, inner.init(params))

    def update_fn(
        updates: Any, state: AutoRgnState, params: Params = None, **extra_args: Any
    ) -> tuple[Any, AutoRgnState]:
        since = state.step % every  # the first of this measure
        kept = jnp.where(since == 0, 0.0, 1.0)
        ratios = _relative_norms(updates, params, of)
        measured = paths.map_with_path(
            lambda path, old: jnp.where(
                since < batches, kept * old + ratios[of(path)], old
            ),
            state.measured,
        )
        means = {of(path): pair for path, pair in paths.flatten(measured).items()}
        factors = _parts_of_largest(means)
        due = (since == batches - 1) | (state.step < batches)
        scales = paths.map_with_path(
            lambda path, old: jnp.where(due, factors[of(path)], old), state.scales
        )
        moves, inner_state = inner.update(updates, state.inner, params, **extra_args)
        scaled = paths.map_where(
            lambda _, u, scale: u * scale.astype(u.dtype), moves, scales
        )
        return scaled, AutoRgnState(state.step + 1, scales, measured, inner_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _relative_norms(
    grads: Any, params: Params, group_of: Callable[[str], Group]
) -> dict[Group, jax.Array]:
    """Each layer's gradient norm over its parameters' norm, and 1; or twice 0."""
    squares: dict[Group, list[jax.Array]] = {}
    now = paths.flatten(params)
    for path, grad in paths.flatten(grads).items():
        pair = jnp.stack([_square(grad), _square(now[path])])
        squares.setdefault(group_of(path), []).append(pair)
    ratios = {}
    for group, pairs in squares.items():
        grad, param = sum(pairs[1:], pairs[0])
        ratio = jnp.stack([jnp.sqrt(grad / param), jnp.ones_like(grad)])
        ratios[group] = jnp.where(param > 0, ratio, 0.0)
    return ratios


def _parts_of_largest(measured: dict[Group, jax.Array]) -> dict[Group, jax.Array]:
    """Each layer's mean as part of the largest; 1 where there is none."""
    means = {x: total / jnp.maximum(n, 1.0) for x, (total, n) in measured.items()}
    largest = jnp.max(jnp.stack(list(means.values())))
    return {
        group: jnp.where((measured[group][1] > 0) & (largest > 0), mean / largest, 1.0)
        for group, mean in means.items()
    }


def _square(leaf: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(leaf.astype(jnp.float32)))
