# SPDX-License-Identifier: Apache-2.0
"""Blocks whose activations are computed anew in the backward pass, to save memory.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

import jax

from jft.types import ApplyFn, Batch, InputError, Params, PrefixFn

Forward = TypeVar("Forward", ApplyFn, PrefixFn)

RematRules = Sequence[tuple[str, str]]  # regex of a block's path -> policy

# what a block keeps for its backward pass; "all" computes nothing anew
POLICIES: Mapping[str, Callable[..., bool] | None] = {
    "all": None,
    "products": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "nothing": jax.checkpoint_policies.nothing_saveable,
}

_RULES: ContextVar[RematRules] = ContextVar("remat_rules", default=())


def with_remat(forward_fn: Forward, rules: RematRules) -> Forward:
    r"""Let the blocks of a forward keep what the rules say; the numbers stay the same.

    Args:
      forward_fn: a model's forward, or the part of it below a boundary.
      rules: ordered ``(regex over a block's whole path, policy)`` such as
        ``(r"bert/encoder/layer/\d+", "nothing")``; the first wins, and a block that
        none matches keeps all. Policies: ``"all"``, ``"products"`` (the results of
        products with parameters), ``"nothing"`` (the block's input alone).

    Returns:
      The forward.

    Raises:
      InputError: for a policy that is none of these, or a broken regex.
    """
    check_rules(rules)

    def forward(params: Params, batch: Batch, **options: Any) -> Any:
        with _rules(rules):
            return forward_fn(params, batch, **options)

    return forward


def check_rules(rules: RematRules) -> None:
    """Refuse rules that no block could follow."""
    for pattern, policy in rules:
        if policy not in POLICIES:
            raise InputError(
                f"the remat rule {[pattern, policy]} names the policy {policy!r}; "
                f"expected one of {list(POLICIES)}."
            )
        try:
            re.compile(pattern)
        except re.error as error:
            raise InputError(
                f"the remat rule {[pattern, policy]} is no regular expression: {error}."
            ) from error


def policy_of(path: str) -> Callable[..., bool] | None:
    """What the block of that path keeps, by the rules in force; None keeps all."""
    for pattern, policy in _RULES.get():
        if re.fullmatch(pattern, path):
            return POLICIES[policy]
    return None


@contextlib.contextmanager
def _rules(rules: RematRules) -> Iterator[None]:
    token = _RULES.set(rules)
    try:
        yield
    finally:
        _RULES.reset(token)
