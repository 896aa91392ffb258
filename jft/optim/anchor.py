# SPDX-License-Identifier: Apache-2.0
"""L2-SP: pull parameters towards where they started, not towards zero."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import optax

from jft import paths
from jft.optim.states import check_params, find_states
from jft.types import InputError, Params

Strength = float | Callable[[str], float]  # of all anchored leaves, or of a path


class AnchorState(NamedTuple):
    """The starting point of every anchored leaf; None elsewhere."""

    anchor: Params


def strength_by_rule(
    rules: paths.Rules[float], *, otherwise: float, anchored: Iterable[str]
) -> Callable[[str], float]:
    """Say how strongly each path is pulled: as the first rule that matches it says.

    >>> strength = strength_by_rule([("b.*", 0.1)], otherwise=1.0, anchored=["a", "b"])
    >>> strength("a"), strength("b")
    (1.0, 0.1)

    Args:
      rules: ordered ``(regex, strength)`` pairs; a regex must match the full path.
      otherwise: the strength where no rule matches.
      anchored: the paths that have a starting point worth keeping.

    Returns:
      Path to strength.

    Raises:
      InputError: if a strength is negative, or a rule is the first match of no
        anchored path.
    """
    if any(strength < 0 for strength in (*dict(rules).values(), otherwise)):
        raise InputError(
            f"L2-SP strengths are {list(rules)} and {otherwise} elsewhere; expected 0 "
            "or more: a negative one pushes parameters away from their start."
        )
    strengths = paths.match_rules([*rules, (".*", otherwise)], [*anchored, ""])
    return lambda path: strengths.get(path, otherwise)


def l2_sp(
    strength: Strength, anchor_mask: Callable[[str, Any], bool] | None = None
) -> optax.GradientTransformation:
    """Add ``strength * (p - p0)`` to the updates, ``p0`` the parameters at ``init``.

    Decoupled, as AdamW's weight decay is: placed after the moments and multiplied by
    the learning rate once. The state is one copy of the anchored leaves.
    Li, Grandvalet and Davoine 2018, "Explicit inductive bias for transfer learning
    with convolutional networks", arXiv 1802.01483.

    Args:
      strength: the penalty's weight (alpha of the paper), or a function from a path to
        its own (see `strength_by_rule`); a leaf of strength 0 is not kept.
      anchor_mask: ``(path, leaf) -> bool``, which leaves to anchor; None is all.
        A newly drawn head has no pre-trained value to return to: leave it out.

    Returns:
      The transform; ``update`` needs ``params``.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = l2_sp(0.5)
      >>> state = tx.init({"w": jnp.array(1.0)})
      >>> updates = {"w": jnp.array(0.0)}
      >>> float(tx.update(updates, state, {"w": jnp.array(3.0)})[0]["w"])
      1.0
    """

    def strength_of(path: str) -> float:
        return strength(path) if callable(strength) else strength

    def pulled(path: str, leaf: Any) -> bool:
        anchored = anchor_mask is None or anchor_mask(path, leaf)
        return anchored and strength_of(path) > 0

    def init_fn(params: Params) -> AnchorState:
        return AnchorState(keep_start(params, pulled))

    def update_fn(
        updates: Any, state: AnchorState, params: Params = None
    ) -> tuple[Any, AnchorState]:
        check_params(params)
        now = paths.flatten(params)

        def pull(path: str, update: Any, start: Any) -> Any:
            return update + strength_of(path) * (now[path] - start)

        return paths.map_where(pull, updates, state.anchor), state

    return optax.GradientTransformation(init_fn, update_fn)


def hold_anchor(
    anchor_mask: Callable[[str, Any], bool] | None = None,
) -> optax.GradientTransformation:
    """Keep the starting point in the state, see `anchor_of`; updates pass on unchanged.

    Args:
      anchor_mask: as for `l2_sp`.
    """
    chosen = anchor_mask or (lambda path, leaf: True)

    def update_fn(
        updates: Any, state: AnchorState, params: Params = None
    ) -> tuple[Any, AnchorState]:
        del params
        return updates, state

    return optax.GradientTransformation(
        lambda params: AnchorState(keep_start(params, chosen)), update_fn
    )


def anchor_of(opt_state: Any) -> Params:
    """Find the starting point in the state of a chain that keeps one.

    Returns:
      All of it, as nested dicts, also where each group that opens keeps its own part.

    Raises:
      InputError: if it keeps none.
    """
    states = find_states(opt_state, AnchorState)
    if not states:
        raise InputError(
            "this optimizer state keeps no starting point; make the optimizer with "
            "keep_anchor=True."
        )
    leaves: dict[str, jax.Array] = {}
    for state in states:
        leaves |= paths.flatten(state.anchor)
    return paths.unflatten(leaves)


def keep_start(params: Params, anchor_mask: Callable[[str, Any], bool]) -> Params:
    """The leaves that the mask chooses; None elsewhere."""
    return paths.map_with_path(
        lambda path, leaf: leaf if anchor_mask(path, leaf) else None, params
    )
