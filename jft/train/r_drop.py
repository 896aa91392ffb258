# SPDX-License-Identifier: Apache-2.0
"""Regularised dropout: two draws of the same batch must say the same."""

from typing import Any, NamedTuple

import jax

from jft.train.divergence import DivergenceFn, softmax_divergence
from jft.train.losses import Pair
from jft.types import ApplyFn, Batch, InputError, LossFn, Params


class Draws(NamedTuple):
    """The outputs of one batch under two draws of dropout."""

    first: Any
    second: Any


def make_r_drop(
    apply_fn: ApplyFn,
    loss_fn: LossFn,
    *,
    alpha: float,
    divergence_fn: DivergenceFn = softmax_divergence,
) -> tuple[ApplyFn, LossFn]:
    """Wrap a forward and its loss so that both draws are right, and alike.

    The loss is the mean of both draws' plus ``alpha (KL(p || q) + KL(q || p)) / 2``
    (Liang et al. 2021, https://arxiv.org/abs/2106.14448). The paper adds the losses of
    both draws instead, so half of its ``alpha`` means the same here. A step costs two
    forwards and two backwards. Without a key there is one draw and the plain loss.

    Args:
      apply_fn: a forward with dropout.
      loss_fn: of its outputs.
      alpha: weight of the divergence; 0 only averages the draws.
      divergence_fn: the kind that fits the task, of `jft.train.DIVERGENCES`.

    Returns:
      ``(apply_fn, loss_fn)`` for `make_train_step`; metrics of the step see both
      draws, so wrap them with `on_first_draw`.

    Raises:
      InputError: for a negative ``alpha``.
    """
    if alpha < 0:
        raise InputError(
            f"alpha is {alpha}, which would drive the draws apart; expected >= 0."
        )

    def apply_twice(params: Params, batch: Batch, *, key: jax.Array | None) -> Any:
        if key is None:
            return apply_fn(params, batch, key=None)
        return Draws(*(apply_fn(params, batch, key=k) for k in jax.random.split(key)))

    def loss_of_both(outputs: Any, batch: Batch) -> Pair:
        if not isinstance(outputs, Draws):
            return loss_fn(outputs, batch)
        p, q = outputs
        (total_p, weight), (total_q, _) = loss_fn(p, batch), loss_fn(q, batch)
        apart = divergence_fn(p, q, batch, temperature=1.0)
        apart += divergence_fn(q, p, batch, temperature=1.0)
        return (total_p + total_q + alpha * apart) / 2, weight

    return apply_twice, loss_of_both


def on_first_draw(metric_fn: LossFn) -> LossFn:
    """Let a metric of plain outputs look at those of `make_r_drop`'s forward."""

    def of_first(outputs: Any, batch: Batch) -> Pair:
        return metric_fn(
            outputs.first if isinstance(outputs, Draws) else outputs, batch
        )

    return of_first
