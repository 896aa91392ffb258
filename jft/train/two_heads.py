# SPDX-License-Identifier: Apache-2.0
"""Two heads on one body: the new task's trains, the old task's only answers.

The old head's leaves are constants, set aside with `jft.evals.set_head_aside`: what it
says teaches the body, and it stays as it came. A language model answers every task
with the same leaves; then nothing is set aside, and its one head learns from both.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from jft import paths
from jft.types import ApplyFn, Batch, InputError, LossFn, Params, PrefixFn

REPLAYED = "replayed"  # field of a batch: a whole batch of the old task


class BothHeads(NamedTuple):
    """What the two heads say."""

    new: Any
    old: Any


def make_old_forward(apply_fn: ApplyFn, old_head: Mapping[str, Any]) -> ApplyFn:
    """Make the old task's forward one of the new task's parameters.

    Args:
      apply_fn: the forward of the old task's model.
      old_head: ``{path: array}``, put in the places of the new head's leaves, or
        beside them.

    Returns:
      The forward; it is differentiated in the body alone.
    """

    def apply_old(params: Params, batch: Batch, *, key: jax.Array | None) -> Any:
        return apply_fn(paths.with_leaves(params, old_head), batch, key=key)

    return apply_old


def ask_both_heads(
    apply_fn: ApplyFn,
    old_fn: ApplyFn,
    *,
    body_fn: PrefixFn | None = None,
    boundary: int = 0,
) -> ApplyFn:
    """Make a forward that asks both heads about the same batch.

    Args:
      apply_fn: the forward with the new head.
      old_fn: that with the old one, see `make_old_forward`.
      body_fn: runs the body once for both, up to ``boundary``, the heads'; both
        forwards must go on from there. Without it the compiler merges two equal
        forwards, with one key the same dropout too, but no backward passes.
      boundary: the model's number of blocks + 1.

    Returns:
      A forward to `BothHeads`.
    """

    def apply_both(params: Params, batch: Batch, *, key: jax.Array | None) -> BothHeads:
        if body_fn is not None:
            batch = body_fn(params, batch, stop=boundary, key=key)
        new = apply_fn(params, batch, key=key)
        return BothHeads(new, old_fn(params, batch, key=key))

    return apply_both


def ask_about_replayed(apply_fn: ApplyFn, old_fn: ApplyFn) -> ApplyFn:
    """Make a forward that asks the old head about the batch's replayed examples.

    Args:
      apply_fn: the forward with the new head, for all but ``batch["replayed"]``.
      old_fn: that with the old one, for ``batch["replayed"]``; see `make_old_forward`.

    Returns:
      A forward to `BothHeads`; the two parts drop out independently.
    """

    def apply_both(params: Params, batch: Batch, *, key: jax.Array | None) -> BothHeads:
        rest, replayed = split_replayed(batch)
        other = None if key is None else jax.random.fold_in(key, 1)
        new = apply_fn(params, rest, key=key)
        return BothHeads(new, old_fn(params, replayed, key=other))

    return apply_both


def split_replayed(batch: Batch) -> tuple[dict[str, Any], Batch]:
    """The batch without its replayed examples, and these.

    Raises:
      InputError: for a batch without any.
    """
    if REPLAYED not in batch:
        raise InputError(
            f"the batch has the fields {sorted(batch)}, but no {REPLAYED!r}: a batch "
            "of the old task. Add one to each, as jft.data.join_loaders does."
        )
    rest = {name: x for name, x in batch.items() if name != REPLAYED}
    return rest, batch[REPLAYED]


def with_replayed_prefix(prefix_fn: PrefixFn, old_prefix_fn: PrefixFn) -> PrefixFn:
    """Make a prefix run both the batch and its replayed examples up to a boundary."""

    def prefix_both(
        params: Params, batch: Batch, *, stop: int, key: jax.Array | None = None
    ) -> Batch:
        rest, replayed = split_replayed(batch)
        ran = prefix_fn(params, rest, stop=stop, key=key)
        old = old_prefix_fn(params, replayed, stop=stop, key=key)
        return {**ran, REPLAYED: old}

    return prefix_both


def on_new_head(metric_fn: LossFn) -> LossFn:
    """Let a metric of plain outputs look at those of the head that trains."""

    def of_new(outputs: Any, batch: Batch) -> Any:
        while isinstance(outputs, BothHeads):
            outputs = outputs.new
        return metric_fn(outputs, batch)

    return of_new
