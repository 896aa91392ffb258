# SPDX-License-Identifier: Apache-2.0
"""Learning without forgetting: the old head must say of new inputs what it said."""

from typing import Any

from jft.train.divergence import DivergenceFn, softmax_divergence
from jft.train.losses import Pair
from jft.train.two_heads import BothHeads
from jft.types import Batch, InputError, LossFn


def lwf_loss(
    loss_fn: LossFn,
    *,
    weight: float,
    temperature: float = 2.0,
    divergence_fn: DivergenceFn = softmax_divergence,
) -> LossFn:
    """Add how far the old head's answers have moved: ``L_new + weight L_old``.

    ``L_old = KL(before || now)`` of the old head on the *new* task's inputs, both
    softened by ``temperature``: no data of the old task is needed. It has the gradient
    of the paper's ``-Σ y' log ŷ'`` and is 0 at the start; like the paper's, and unlike
    `distillation_loss`, it is not multiplied by the temperature's square. The paper
    trains the old head too; here it stays. Both sums are divided by the weight of
    ``loss_fn``. Li and Hoiem 2016, https://arxiv.org/abs/1606.09282, equations 2 to 4.

    Args:
      loss_fn: of the new head's outputs; its weight is the result's.
      weight: the paper's ``λ_o``, at least 0.
      temperature: ``T`` > 0.
      divergence_fn: the kind that fits the task, of `jft.train.DIVERGENCES`.

    Returns:
      The loss of `jft.train.two_heads.ask_both_heads`' outputs; a batch must have
      ``old_logits``, what the model said before its first step.

    Raises:
      InputError: for a weight or temperature out of range; when used, for a batch
        without ``old_logits`` or with those of another shape.
    """
    if weight < 0 or temperature <= 0:
        raise InputError(
            f"learning without forgetting got weight={weight} and "
            f"temperature={temperature}; expected a weight of at least 0 and a "
            "temperature above 0. Correct them."
        )

    def both(outputs: Any, batch: Batch) -> Pair:
        assert isinstance(outputs, BothHeads)
        _check_old(outputs.old, batch)
        total, count = loss_fn(outputs.new, batch)
        distance = divergence_fn(
            batch["old_logits"], outputs.old, batch, temperature=temperature
        )
        return total + weight * distance, count

    return both


def _check_old(old: Any, batch: Batch) -> None:
    before = batch.get("old_logits")
    if before is None or before.shape != old.shape:
        given = None if before is None else before.shape
        raise InputError(
            f"old_logits of the batch are {given}, the old head says {old.shape}; add "
            "what the model said about each of its rows before it was trained."
        )
