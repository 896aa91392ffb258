# SPDX-License-Identifier: Apache-2.0
"""Losses as ``(sum, weight)``: any grouping of examples gives the same mean."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int

Array = jax.Array | np.ndarray
Pair = tuple[jax.Array, jax.Array]


def softmax_cross_entropy(
    logits: Float[Array, "*B C"],
    targets: Int[Array, "*B"],
    *,
    loss_mask: Float[Array, "*B"] | None = None,
    label_smoothing: float = 0.0,
) -> Pair:
    """Cross-entropy of integer targets in nats, as a sum and a weight.

    With smoothing ``s`` the target distribution is ``(1 - s) onehot + s / C``
    (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567). Computed in at least
    float32 whatever the dtype of the logits.

    Args:
      logits: unnormalised scores.
      targets: class ids.
      loss_mask: weight of each example; 0 for padding. None weighs all 1.
      label_smoothing: ``s`` in [0, 1).

    Returns:
      ``(sum of weighted losses, sum of weights)``, both scalars.

    Example:
      >>> total, weight = softmax_cross_entropy(jnp.zeros((2, 4)), jnp.array([0, 3]))
      >>> round(float(total / weight), 4)  # log 4
      1.3863
    """
    logits = _at_least_float32(logits)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    if label_smoothing:
        uniform = -jnp.mean(jax.nn.log_softmax(logits), axis=-1)
        losses = (1.0 - label_smoothing) * losses + label_smoothing * uniform
    return _weighted(losses, loss_mask)


def count_correct(
    logits: Float[Array, "*B C"],
    targets: Int[Array, "*B"],
    *,
    loss_mask: Float[Array, "*B"] | None = None,
) -> Pair:
    """Correct predictions as ``(sum, weight)``; their ratio is the accuracy.

    >>> logits = jnp.array([[1.0, 0.0], [1.0, 0.0]])
    >>> [float(x) for x in count_correct(logits, jnp.array([0, 1]))]
    [1.0, 2.0]
    """
    predictions = jnp.argmax(logits, axis=-1).astype(targets.dtype)
    return _weighted((predictions == targets).astype(jnp.float32), loss_mask)


def _weighted(values: jax.Array, loss_mask: Array | None) -> Pair:
    if loss_mask is None:
        return jnp.sum(values), jnp.asarray(values.size, values.dtype)
    loss_mask = loss_mask.astype(values.dtype)
    return jnp.sum(values * loss_mask), jnp.sum(loss_mask)


def _at_least_float32(x: Array) -> Array:
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)
