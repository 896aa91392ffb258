# SPDX-License-Identifier: Apache-2.0
"""Losses as ``(sum, weight)``: any grouping of examples gives the same mean.

All are computed in at least float32 whatever the dtype of the outputs. ``loss_mask``
weighs the rows of a batch (0 for padding) and may also be as fine as the targets.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int

from jft.data.fields.padding import IGNORED
from jft.types import InputError

Array = jax.Array | np.ndarray
Pair = tuple[jax.Array, jax.Array]


def softmax_cross_entropy(
    logits: Float[Array, "B *L C"],
    targets: Int[Array, "B *L"],
    *,
    loss_mask: Float[Array, "..."] | None = None,
    label_smoothing: float = 0.0,
    class_weights: Float[Array, " C"] | None = None,
    focal_gamma: float = 0.0,
) -> Pair:
    """Cross-entropy of integer targets in nats, as a sum and a weight.

    A target ``y`` adds ``-Σ_c q_c w_c (1 - p_c)^γ log p_c`` to the sum and ``w_y`` to
    the weight, where ``p`` is the softmax and ``q = (1 - s) onehot(y) + s / C``. For
    ``γ = 0`` that is torch's ``CrossEntropyLoss(weight=w, label_smoothing=s)``, for
    ``s = 0`` the focal loss, which targets that are hit already hardly move.

    Targets of tokens are aligned with the logits: ``targets[b, t]`` is what
    ``logits[b, t]`` should predict. For a causal language model that is the token at
    ``t + 1``: whoever makes the fields shifts them, so that masks and packed rows need
    no care here.

    Args:
      logits: unnormalised scores.
      targets: class ids; `IGNORED` ones count nowhere.
      loss_mask: weight of each row ``[B]``, or of each target; 0 for padding. None
        weighs all 1.
      label_smoothing: ``s`` in [0, 1); Szegedy et al. 2016,
        https://arxiv.org/abs/1512.00567.
      class_weights: ``w``, such as `balanced_class_weights`; None weighs all 1.
      focal_gamma: ``γ`` >= 0; Lin et al. 2017, https://arxiv.org/abs/1708.02002.

    Returns:
      ``(sum of weighted losses, sum of weights)``, both scalars.

    Example:
      >>> total, weight = softmax_cross_entropy(jnp.zeros((2, 4)), jnp.array([0, 3]))
      >>> round(float(total / weight), 4)  # log 4
      1.3863
    """
    logits = at_least_float32(logits)
    mask = target_mask(targets, loss_mask, dtype=logits.dtype)
    ids = jnp.where(targets == IGNORED, 0, targets)
    if not label_smoothing and class_weights is None and not focal_gamma:
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, ids)
        return jnp.sum(losses * mask), jnp.sum(mask)
    log_p = jax.nn.log_softmax(logits)
    terms, weights = -log_p, mask  # what each class would add as the target
    if focal_gamma:
        terms *= _focus(log_p, focal_gamma)
    if class_weights is not None:
        of_class = jnp.asarray(class_weights, logits.dtype)
        terms *= jnp.broadcast_to(of_class, terms.shape)
        weights = mask * of_class[ids]
    losses = jnp.take_along_axis(terms, ids[..., None], axis=-1)[..., 0]
    if label_smoothing:
        uniform = jnp.mean(terms, axis=-1)
        losses = (1.0 - label_smoothing) * losses + label_smoothing * uniform
    return jnp.sum(losses * mask), jnp.sum(weights)


def sigmoid_cross_entropy(
    logits: Float[Array, "B C"],
    targets: Float[Array, "B C"],
    *,
    loss_mask: Float[Array, " B"] | None = None,
    pos_weight: Float[Array, " C"] | None = None,
    focal_gamma: float = 0.0,
) -> Pair:
    """Cross-entropy of classes that may hold together, each a yes or no of its own.

    An entry adds ``-[v y (1 - p)^γ log p + (1 - y) p^γ log(1 - p)]`` with ``p`` the
    sigmoid and ``v`` the class's ``pos_weight``; the mean is over rows and classes. For
    ``γ = 0`` that is torch's ``BCEWithLogitsLoss(pos_weight=v)``.

    Args:
      logits: unnormalised scores.
      targets: 1 where the class holds, else 0.
      loss_mask: weight of each row; 0 for padding. None weighs all 1.
      pos_weight: of the classes that hold; above 1 it favours recall. None is all 1.
      focal_gamma: ``γ`` >= 0; Lin et al. 2017, https://arxiv.org/abs/1708.02002.

    Returns:
      ``(sum of weighted losses, C times the sum of row weights)``.

    Example:
      >>> total, weight = sigmoid_cross_entropy(jnp.zeros((2, 3)), jnp.ones((2, 3)))
      >>> float(weight), round(float(total / weight), 4)  # log 2
      (6.0, 0.6931)
    """
    logits = at_least_float32(logits)
    targets = jnp.asarray(targets, logits.dtype)
    yes, no = -jax.nn.log_sigmoid(logits), -jax.nn.log_sigmoid(-logits)
    if focal_gamma:
        yes, no = (
            yes * jnp.exp(-focal_gamma * no),
            no * jnp.exp(-focal_gamma * yes),
        )
    if pos_weight is not None:
        yes *= jnp.broadcast_to(jnp.asarray(pos_weight, logits.dtype), yes.shape)
    losses = targets * yes + (1.0 - targets) * no
    mask = row_mask(logits.shape, loss_mask, dtype=logits.dtype)
    return jnp.sum(losses * mask), jnp.sum(mask)


def squared_error(
    outputs: Float[Array, " B"] | Float[Array, "B 1"],
    targets: Float[Array, " B"],
    *,
    loss_mask: Float[Array, " B"] | None = None,
) -> Pair:
    """Squared difference of one number a row, as torch's ``MSELoss``.

    >>> values = jnp.array([[1.0], [2.0]])
    >>> [float(x) for x in squared_error(values, jnp.array([1.0, 5.0]))]
    [9.0, 2.0]
    """
    values = at_least_float32(outputs).reshape(-1)
    losses = jnp.square(values - jnp.asarray(targets, values.dtype))
    mask = row_mask(values.shape, loss_mask, dtype=values.dtype)
    return jnp.sum(losses * mask), jnp.sum(mask)


def span_cross_entropy(
    logits: Float[Array, "B L 2"],
    targets: Int[Array, "B 2"],
    *,
    attention_mask: Int[Array, "B L"] | None = None,
    loss_mask: Float[Array, " B"] | None = None,
) -> Pair:
    """Cross-entropy of an answer's first and last token, each over the row's tokens.

    Padding tokens are no candidates, so that a row's loss does not depend on how far
    its batch is padded. On rows without padding it is what transformers' question
    answering models compute, the mean over both ends.

    Args:
      logits: scores of each token as start and as end.
      targets: positions of start and end; an `IGNORED` end counts nowhere.
      attention_mask: 1 for real tokens, which the targets must be among; None takes
        all tokens for real.
      loss_mask: weight of each row; 0 for padding rows. None weighs all 1.

    Returns:
      ``(sum of losses, sum of weights)``; each end is half a row.

    Example:
      >>> logits, real = jnp.zeros((1, 8, 2)), jnp.array([[1, 1, 1, 1, 0, 0, 0, 0]])
      >>> targets = jnp.array([[1, 2]])
      >>> total, weight = span_cross_entropy(logits, targets, attention_mask=real)
      >>> round(float(total / weight), 4)  # log 4
      1.3863
    """
    scores = span_scores(logits, attention_mask)
    total, weight = softmax_cross_entropy(scores, targets, loss_mask=loss_mask)
    return total / 2, weight / 2


def count_correct(
    logits: Float[Array, "B *L C"],
    targets: Int[Array, "B *L"],
    *,
    loss_mask: Float[Array, "..."] | None = None,
) -> Pair:
    """Correct predictions as ``(sum, weight)``; their ratio is the accuracy.

    Masks and `IGNORED` targets are treated as in `softmax_cross_entropy`.

    >>> logits = jnp.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    >>> [float(x) for x in count_correct(logits, jnp.array([0, 1, IGNORED]))]
    [1.0, 2.0]
    """
    predictions = jnp.argmax(logits, axis=-1).astype(targets.dtype)
    mask = target_mask(targets, loss_mask, dtype=jnp.float32)
    return jnp.sum(jnp.where(predictions == targets, mask, 0.0)), jnp.sum(mask)


def balanced_class_weights(
    targets: Int[np.ndarray, "..."], *, num_classes: int
) -> Float[np.ndarray, " C"]:
    """Weights under which every class counts as much: ``N / (C * count)``.

    scikit-learn's ``compute_class_weight("balanced", …)``. Counted on the host, over
    the whole training set.

    Args:
      targets: class ids, of any shape; `IGNORED` ones count nowhere.
      num_classes: ``C``.

    Raises:
      InputError: if a class has no target: its weight would be infinite.

    Example:
      >>> balanced_class_weights(np.array([0, 0, 0, 1]), num_classes=2).tolist()
      [0.6666666865348816, 2.0]
    """
    classes, counts = np.unique(targets[targets != IGNORED], return_counts=True)
    if classes.tolist() != list(range(num_classes)):
        differing = sorted(set(range(num_classes)) ^ set(classes.tolist()))
        raise InputError(
            "balanced class weights need examples of each class, 0 to "
            f"{num_classes - 1}, and of no other; at fault are {differing}. Leave "
            "classes without examples out, or give the weights as numbers."
        )
    weights: np.ndarray = counts.sum() / (num_classes * counts)
    return weights.astype(np.float32)


def span_scores(logits: Array, attention_mask: Array | None) -> jax.Array:
    """Scores ``[B, 2, L]`` of start and end, padding tokens out of reach."""
    scores = jnp.swapaxes(at_least_float32(logits), 1, 2)
    if attention_mask is None:
        return scores
    # not -inf: the rows of a batch that are all padding must stay finite
    filler = float(np.finfo(scores.dtype).min)
    return jnp.where(attention_mask[:, None, :] > 0, scores, filler)


def target_mask(targets: Array, loss_mask: Array | None, *, dtype: Any) -> jax.Array:
    """The weight of each target: the mask's, and 0 where it is `IGNORED`."""
    mask = row_mask(targets.shape, loss_mask, dtype=dtype)
    return jnp.where(targets == IGNORED, 0.0, mask)


def row_mask(
    shape: tuple[int, ...], loss_mask: Array | None, *, dtype: Any
) -> jax.Array:
    """Spread a mask of the first axes over all of them; all 1 for None."""
    if loss_mask is None:
        return jnp.ones(shape, dtype)
    if loss_mask.shape != shape[: loss_mask.ndim]:
        raise InputError(
            f"the loss_mask has the shape {loss_mask.shape}, but the targets have "
            f"{shape}. Give one weight a row, or one a target."
        )
    axes = tuple(range(loss_mask.ndim, len(shape)))
    mask = jnp.expand_dims(jnp.asarray(loss_mask, dtype), axes)
    return jnp.broadcast_to(mask, shape)


def at_least_float32(x: Array) -> jax.Array:
    """Widen to float32; float64 stays."""
    return jnp.asarray(x, x.dtype if x.dtype == jnp.float64 else jnp.float32)


def _focus(log_p: jax.Array, gamma: float) -> jax.Array:
    """``(1 - p)^γ``, whose derivative stays finite where p rounds to 1."""
    below_one = 1.0 - float(np.finfo(log_p.dtype).epsneg)
    return jnp.exp(gamma * jnp.log1p(-jnp.minimum(jnp.exp(log_p), below_one)))
