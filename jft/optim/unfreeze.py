# SPDX-License-Identifier: Apache-2.0
"""Gradual unfreezing: closed groups have no update, no state change, no clock.

Both transforms here take the open groups either from the step (inside one compiled
train step) or from the static extra argument ``open_groups`` (one compiled train step
a phase); state structure and values are the same both ways. The step is the extra
argument ``step`` where the caller has a count of its own, else the number of updates.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jft import paths
from jft.optim.openings import OpenAt, Windows, is_open, normalize_open_at
from jft.types import Group, InputError, Params


class CloseGradientsState(NamedTuple):
    """Global step of ``close_gradients``."""

    step: jax.Array  # []


class GradualUnfreezeState(NamedTuple):
    """Global step, and one inner state a group over that group's leaves only."""

    step: jax.Array  # []
    inner: dict[str, Any]  # str(group) -> state of the inner transform


def close_gradients(
    group_of: Callable[[str], Any], open_at: OpenAt
) -> optax.GradientTransformationExtraArgs:
    """Set the gradients of closed groups to zero, before anything measures them.

    Placed before clipping, so that the global norm is the open groups' norm.

    Args:
      group_of: path to group, usually a family's ``layer_index``.
      open_at: group to opening step or windows; must name every group.

    Returns:
      The transform; updates that are None stay None.

    Example:
      >>> tx = close_gradients(lambda path: path, {"head": 0, "body": 10})
      >>> grads = {"head": jnp.ones(()), "body": jnp.ones(())}
      >>> updates, _ = tx.update(grads, tx.init(grads))
      >>> float(updates["head"]), float(updates["body"])
      (1.0, 0.0)
    """
    windows = normalize_open_at(open_at)

    def init_fn(params: Params) -> CloseGradientsState:
        _check_groups(paths.flatten(params), group_of, windows)
        return CloseGradientsState(step=jnp.zeros((), jnp.int32))

    def update_fn(
        updates: Any,
        state: CloseGradientsState,
        params: Params = None,
        *,
        open_groups: frozenset[Any] | None = None,
        step: jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[Any, CloseGradientsState]:
        del params, extra_args
        _check_open(open_groups, windows)
        now = state.step if step is None else step

        def close(path: str, update: Any) -> Any:
            group = group_of(path)
            if open_groups is None:
                moves = is_open(windows[group], now)
                return jnp.where(moves, update, jnp.zeros_like(update))
            return update if group in open_groups else jnp.zeros_like(update)

        return paths.map_with_path(close, updates), CloseGradientsState(state.step + 1)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def gradual_unfreeze(
    tx: optax.GradientTransformation,
    group_of: Callable[[str], Any],
    open_at: OpenAt,
) -> optax.GradientTransformationExtraArgs:
    """Run ``tx`` separately on each group, only while that group is open.

    While a group is closed its update is exactly zero and its inner state is passed
    through untouched, step count included: when it opens, Adam's bias correction
    starts from one, as a fresh Adam's would. What belongs to the inner transform
    (moments, weight decay, anchors) therefore leaves closed groups alone; what runs
    on global steps (the learning-rate schedule) belongs outside.

    ``update(grads, state, params, open_groups=frozenset(...))`` says statically which
    groups are open: closed groups then cost nothing and their gradients may be None.
    Without it each group is a ``lax.cond`` on the step.

    Args:
      tx: the inner transform; it sees one group's leaves at a time, None elsewhere.
      group_of: path to group, usually a family's ``layer_index``.
      open_at: group to opening step or windows; must name every group that has
        leaves (groups without leaves, such as frozen layers, may be named).

    Returns:
      The gated transform; its state has the same structure at all times.

    Raises:
      InputError: from ``init``, if a group of the parameters is not in ``open_at``;
        from ``update``, if one of ``open_groups`` is not.

    Example:
      >>> tx = gradual_unfreeze(optax.scale(-1.0), lambda p: p, {"head": 0, "body": 1})
      >>> grads = {"head": jnp.ones(()), "body": jnp.ones(())}
      >>> updates, state = tx.update(grads, tx.init(grads), grads)
      >>> float(updates["head"]), float(updates["body"])
      (-1.0, 0.0)
    """
    inner_tx = optax.with_extra_args_support(tx)
    windows = normalize_open_at(open_at)

    def init_fn(params: Params) -> GradualUnfreezeState:
        groups = _check_groups(paths.flatten(params), group_of, windows)
        inner = {str(g): inner_tx.init(_only(params, g, group_of)) for g in groups}
        assert len(inner) == len(groups), f"two groups of one name among {groups}"
        return GradualUnfreezeState(step=jnp.zeros((), jnp.int32), inner=inner)

    def update_fn(
        updates: Any,
        state: GradualUnfreezeState,
        params: Params = None,
        *,
        open_groups: frozenset[Any] | None = None,
        step: jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[Any, GradualUnfreezeState]:
        def run(group_updates: Any, inner: Any, group_params: Any) -> tuple[Any, Any]:
            return inner_tx.update(group_updates, inner, group_params, **extra_args)

        _check_open(open_groups, windows)
        now = state.step if step is None else step
        moved: dict[str, Any] = {}
        new_inner = dict(state.inner)
        for group, spans in windows.items():
            name = str(group)
            if name not in state.inner or (
                open_groups is not None and group not in open_groups
            ):
                continue
            args = (
                _only(updates, group, group_of),
                state.inner[name],
                _only(params, group, group_of),
            )
            if open_groups is None:
                result = _run_if(is_open(spans, now), run, *args)
            else:
                result = run(*args)
            moved |= paths.flatten(result[0])
            new_inner[name] = result[1]

        def pick(path: str, update: Any) -> Any:
            return moved[path] if path in moved else jnp.zeros_like(update)

        new_state = GradualUnfreezeState(step=state.step + 1, inner=new_inner)
        return paths.map_with_path(pick, updates), new_state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _run_if(
    predicate: Any, run: Callable[..., Any], updates: Any, inner: Any, params: Any
) -> tuple[Any, Any]:
    """Return ``run(...)`` where the predicate holds, else zeros and the same state."""

    def skip(updates: Any, inner: Any, params: Any) -> tuple[Any, Any]:
        shapes, _ = jax.eval_shape(run, updates, inner, params)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return zeros, inner

    return jax.lax.cond(predicate, run, skip, updates, inner, params)


def _only(tree: Any, group: Group, group_of: Callable[[str], Any]) -> Any:
    """Keep the leaves of one group; the others become None."""
    return paths.map_with_path(lambda p, x: x if group_of(p) == group else None, tree)


def _check_open(open_groups: Any, windows: Mapping[Group, Windows]) -> None:
    """What opens by name must have one; another would open nothing, silently."""
    if open_groups is not None and (unknown := set(open_groups) - windows.keys()):
        raise InputError(
            f"open_groups has {sorted(map(str, unknown))}, but open_at says of "
            f"{sorted(map(str, windows))} when they open. Name some of these."
        )


def _check_groups(
    names: Iterable[str],
    group_of: Callable[[str], Any],
    windows: Mapping[Group, Windows],
) -> list[Any]:
    """Return the groups that own leaves, in opening order."""
    owned = {group_of(path) for path in names}
    if owned - windows.keys():
        raise InputError(
            "open_at must say when each group opens. Groups of the parameters: "
            f"{sorted(map(str, owned))}; groups in open_at: "
            f"{sorted(map(str, windows))}. Add the missing ones, or label their "
            "parameters frozen."
        )
    return [group for group in windows if group in owned]
