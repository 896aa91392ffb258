# SPDX-License-Identifier: Apache-2.0
"""Losses of pairs of embeddings, as ``(sum, weight)``."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jft.train.losses import Array, Pair, at_least_float32, row_mask, squared_error


def in_batch_contrastive(
    a: Float[Array, "B D"],
    b: Float[Array, "B D"],
    *,
    scale: float = 20.0,
    symmetric: bool = False,
    loss_mask: Float[Array, " B"] | None = None,
    positive_ids: Int[Array, " B"] | None = None,
) -> Pair:
    """Find each row's partner among those of all rows: cross-entropy of the cosines.

    Row ``i`` adds ``-log softmax_j(scale cos(a_i, b_j))`` at ``j = i``: InfoNCE (van
    den Oord et al. 2018, https://arxiv.org/abs/1807.03748), which sentence-transformers
    calls multiple negatives ranking (Henderson et al. 2017,
    https://arxiv.org/abs/1705.00652). Padding rows are nobody's negative.

    The other rows are part of each row's loss. So unlike every other loss this one
    depends on the batch size; with ``grad_accum_steps`` only the rows of one
    microbatch meet each other, and under `pmap` those of one device.

    Args:
      a: embeddings of the anchors, of any length.
      b: embeddings of their partners.
      scale: inverse of the temperature.
      symmetric: also find each partner's anchor, and take the mean of both.
      loss_mask: weight of each row; 0 for padding. None weighs all 1.
      positive_ids: rows of the same number are not each other's negatives, such as
        those with the same partner; None takes all rows for different.

    Returns:
      ``(sum of losses, sum of weights)``.

    Example:
      >>> a = jnp.eye(2)
      >>> total, weight = in_batch_contrastive(a, a, scale=1.0)
      >>> round(float(total / weight), 4)  # log(1 + 1 / e)
      0.3133
    """
    a, b = _normalise(a), _normalise(b)
    scores = scale * jnp.matmul(a, b.T, precision="highest")
    mask = row_mask(scores.shape[:1], loss_mask, dtype=scores.dtype)
    itself = jnp.eye(len(scores), dtype=bool)
    different = ~itself
    if positive_ids is not None:
        ids = jnp.asarray(positive_ids)
        different = ids[:, None] != ids[None, :]
    candidates = itself | (different & (mask > 0)[None, :])
    losses = _find_diagonal(scores, candidates)
    if symmetric:
        losses = (losses + _find_diagonal(scores.T, candidates)) / 2
    return jnp.sum(losses * mask), jnp.sum(mask)


def cosine_regression(
    a: Float[Array, "B D"],
    b: Float[Array, "B D"],
    targets: Float[Array, " B"],
    *,
    loss_mask: Float[Array, " B"] | None = None,
) -> Pair:
    """Squared difference of the cosine of two embeddings and the target.

    sentence-transformers' ``CosineSimilarityLoss``, and what SetFit trains with: target
    1 for two texts of one class, else 0 (Tunstall et al. 2022,
    https://arxiv.org/abs/2209.11055).

    >>> a = jnp.array([[2.0, 0.0], [3.0, 4.0]])
    >>> b = jnp.array([[5.0, 0.0], [1.0, 0.0]])
    >>> total, _ = cosine_regression(a, b, jnp.array([1.0, 0.5]))
    >>> round(float(total), 4)  # 0 + 0.1²
    0.01
    """
    return squared_error(cosine_similarity(a, b), targets, loss_mask=loss_mask)


def cosine_similarity(
    a: Float[Array, "B D"], b: Float[Array, "B D"]
) -> Float[jax.Array, " B"]:
    """Cosine of each row of ``a`` with that of ``b``; 0 for a zero vector.

    >>> cosines = cosine_similarity(jnp.array([[3.0, 4.0]]), jnp.array([[2.0, 0.0]]))
    >>> round(float(cosines[0]), 4)
    0.6
    """
    return jnp.sum(_normalise(a) * _normalise(b), axis=-1)


def _normalise(x: Array) -> jax.Array:
    """Rows of length 1; a zero row, as padding may be, keeps a finite gradient."""
    x = at_least_float32(x)
    return x * jax.lax.rsqrt(
        jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), 1e-24)
    )


def _find_diagonal(scores: jax.Array, candidates: jax.Array) -> jax.Array:
    """Cross-entropy of each row's own column among its candidates."""
    filler = float(np.finfo(scores.dtype).min)
    among = jnp.where(candidates, scores, filler)
    return jax.nn.logsumexp(among, axis=1) - jnp.diagonal(scores)
