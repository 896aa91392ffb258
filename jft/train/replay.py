# SPDX-License-Identifier: Apache-2.0
"""Examples of the old task in every step, so that the body still serves its head."""

from typing import Any

import jax.numpy as jnp

from jft.train.losses import Pair
from jft.train.two_heads import BothHeads, split_replayed
from jft.types import Batch, InputError, LossFn


def replay_loss(loss_fn: LossFn, old_loss_fn: LossFn, *, weight: float) -> LossFn:
    """Add the loss of the batch's replayed examples: ``L_new + weight L_old``.

    Experience replay (Robins 1995; Chaudhry et al. 2019, arXiv 1902.10486), with the
    old task's own data and head. Each of the two is a mean over its own real targets,
    so that ``weight`` does not depend on how many examples are replayed.

    Args:
      loss_fn: of the new head's outputs; its weight is the result's.
      old_loss_fn: of the old head's outputs and ``batch["replayed"]``.
      weight: of the old task's part, at least 0.

    Returns:
      The loss of `jft.train.two_heads.ask_about_replayed`'s outputs. Its two means
      are those of a batch taken at once: `make_train_step` refuses to divide it.

    Raises:
      InputError: for a negative weight.
    """
    if weight < 0:
        raise InputError(
            f"replay got the weight {weight}, which would drive the old task away; "
            "expected >= 0."
        )

    def both(outputs: Any, batch: Batch) -> Pair:
        assert isinstance(outputs, BothHeads)
        rest, replayed = split_replayed(batch)
        total, count = loss_fn(outputs.new, rest)
        old_total, old_count = old_loss_fn(outputs.old, replayed)
        share = count / jnp.maximum(old_count, 1e-9)  # nothing real: the sum is 0
        return total + weight * share * old_total, count

    return both


def on_replayed(metric_fn: LossFn) -> LossFn:
    """Let a metric look at the replayed examples and what the old head says of them."""

    def of_replayed(outputs: Any, batch: Batch) -> Pair:
        assert isinstance(outputs, BothHeads)
        return metric_fn(outputs.old, split_replayed(batch)[1])

    return of_replayed
