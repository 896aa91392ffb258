# SPDX-License-Identifier: Apache-2.0
"""Learn from a teacher's outputs beside the targets."""

from jft.train.divergence import DivergenceFn, softmax_divergence
from jft.train.losses import Array, Pair
from jft.types import Batch, InputError, LossFn


def distillation_loss(
    loss_fn: LossFn,
    *,
    weight: float,
    temperature: float = 1.0,
    divergence_fn: DivergenceFn = softmax_divergence,
) -> LossFn:
    """Mix a loss with the distance to ``batch["teacher_logits"]``.

    ``(1 - w) loss + w T² KL(teacher || student)``, both softened by ``T``; the factor
    keeps the size of the gradients (Hinton et al. 2015,
    https://arxiv.org/abs/1503.02531). Both sums are divided by the weight of
    ``loss_fn``: with class weights, a target's divergence weighs 1 against theirs.

    Args:
      loss_fn: of the targets; its weight is the result's.
      weight: ``w`` in [0, 1]; 1 learns from the teacher alone.
      temperature: ``T`` > 0.
      divergence_fn: the kind that fits the task, of `jft.train.DIVERGENCES`.

    Returns:
      The loss; outputs must be as ``teacher_logits`` are.

    Raises:
      InputError: for a weight or temperature out of range; when used, for a batch
        without ``teacher_logits`` or with those of another shape.

    Example:
      >>> import jax.numpy as jnp
      >>> from jft.train import softmax_cross_entropy
      >>> def loss_fn(outputs, batch):
      ...     return softmax_cross_entropy(outputs, batch["targets"])
      >>> batch = {"targets": jnp.array([0]), "loss_mask": jnp.ones(1)}
      >>> batch["teacher_logits"] = jnp.array([[2.0, 0.0]])
      >>> mixed = distillation_loss(loss_fn, weight=1.0, temperature=2.0)
      >>> float(mixed(batch["teacher_logits"], batch)[0])
      0.0
    """
    if not 0 <= weight <= 1 or temperature <= 0:
        raise InputError(
            f"distillation got weight={weight} and temperature={temperature}; expected "
            "a weight in [0, 1] and a temperature above 0. Correct them."
        )

    def mixed(outputs: Array, batch: Batch) -> Pair:
        _check_teacher(outputs, batch)
        total, count = loss_fn(outputs, batch)
        distance = divergence_fn(
            batch["teacher_logits"], outputs, batch, temperature=temperature
        )
        return (1 - weight) * total + weight * temperature**2 * distance, count

    return mixed


def _check_teacher(outputs: Array, batch: Batch) -> None:
    if "teacher_logits" not in batch:
        raise InputError(
            f"a batch to distil from has no teacher_logits; it has {sorted(batch)}. "
            "Add what the teacher says about each of its rows."
        )
    if batch["teacher_logits"].shape != outputs.shape:
        raise InputError(
            f"teacher_logits have the shape {batch['teacher_logits'].shape}, but the "
            f"model's outputs {outputs.shape}. The teacher must have the same classes "
            "(or tokenizer) and see the same rows."
        )
