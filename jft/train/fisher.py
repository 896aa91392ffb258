# SPDX-License-Identifier: Apache-2.0
"""How much the answers of a model depend on each parameter: the Fisher information."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jft.data.fields.padding import IGNORED
from jft.partition import combine, split
from jft.types import ApplyFn, Batch, InputError, LossFn, ParamLabels, Params

DrawFn = Callable[[Any, Batch, jax.Array], jax.Array]  # (outputs, batch, key)
Total = tuple[Params, jax.Array]  # sum of squares, number of examples


def draw_classes(outputs: Any, batch: Batch, key: jax.Array) -> jax.Array:
    """Draw targets ``[B, …]`` from the softmax of ``outputs`` ``[B, …, C]``.

    What has no target, such as the padding of a text, gets none.
    """
    targets = batch["targets"]
    drawn = jax.random.categorical(key, outputs).astype(targets.dtype)
    return jnp.where(targets == IGNORED, targets, drawn)


def draw_each(outputs: Any, batch: Batch, key: jax.Array) -> jax.Array:
    """Draw for each class ``[B, C]`` on its own whether it holds, by the sigmoid."""
    drawn = jax.random.bernoulli(key, jax.nn.sigmoid(outputs))
    return drawn.astype(batch["targets"].dtype)


# by the name of the divergence that compares two such outputs
DRAWS: Mapping[str, DrawFn] = {"sigmoid": draw_each, "softmax": draw_classes}


def diagonal_fisher(
    apply_fn: ApplyFn,
    loss_fn: LossFn,
    params: Params,
    param_labels: ParamLabels,
    batches: Iterable[Batch],
    *,
    draw_fn: DrawFn | None = None,
    key: jax.Array | None = None,
) -> Params:
    """The mean over examples of the squared gradient of each one's log-likelihood.

    ``F_i = E_x E_y (d log p(y | x) / d p_i)**2``. With ``y`` drawn from the model that
    is the diagonal of the Fisher information; with the data's own ``y`` it is the
    "empirical" one, which says less where the model is right or wrong about all
    (Kunstner et al. 2019, arXiv 1905.12558).

    Examples are differentiated one after the other, so the memory is that of one
    example, its gradient and the sum. There is no dropout.

    Args:
      apply_fn: the model's forward.
      loss_fn: ``(outputs, batch) -> (sum, weight)``, whose sum over one example is
        minus its log-likelihood, such as a cross-entropy.
      params: where to differentiate.
      param_labels: the label tree; frozen leaves have no Fisher information.
      batches: each example in a row of its own; a row whose loss weighs nothing, such
        as padding with ``loss_mask`` 0, is no example.
      draw_fn: how targets are drawn from the model's outputs, an entry of `DRAWS`;
        None takes those of the batch.
      key: of the draws; consumed.

    Returns:
      A tree like ``params`` in float32, None where frozen.

    Raises:
      InputError: if there is no example, if the loss of single ones has no gradient
        (said after the first batch), or if something is to be drawn without a key.

    Example:
      >>> from jft.train import softmax_cross_entropy
      >>> apply_fn = lambda params, batch, key: params["w"][None]
      >>> loss_fn = lambda out, batch: softmax_cross_entropy(out, batch["targets"])
      >>> batches = [{"targets": jnp.array([0, 1, 1])}]
      >>> args = {"w": jnp.zeros(2)}, {"w": "all"}, batches
      >>> diagonal_fisher(apply_fn, loss_fn, *args)["w"].tolist()  # (p - y)**2
      [0.25, 0.25]
    """
    if draw_fn is not None and key is None:
        raise InputError(
            "targets are drawn from the model, from a key, and key is None; pass "
            "key=jax.random.key(seed), or draw_fn=None for the data's own targets."
        )
    moving, rest = split(params, param_labels)
    add = jax.jit(
        functools.partial(_add_batch, apply_fn, loss_fn, draw_fn), donate_argnums=0
    )
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), moving)
    total: Total = (zeros, jnp.zeros((), jnp.int32))
    checked = False
    for index, batch in enumerate(batches):
        here = None if key is None else jax.random.fold_in(key, index)
        total = add(total, moving, rest, dict(batch), here)
        if not checked and int(total[1]):
            _check_gradient(total)
            checked = True
    squares, count = total
    if not int(count):
        raise InputError(
            "no real example to compute a Fisher information of: the set is empty or "
            "every loss_mask is 0."
        )
    return jax.tree.map(lambda leaf: leaf / count.astype(leaf.dtype), squares)


def _check_gradient(total: Total) -> None:
    """Refuse a loss that says nothing of one example, before all of them are read."""
    if not any(bool(jnp.any(leaf)) for leaf in jax.tree.leaves(total[0])):
        raise InputError(
            f"the loss of each of the first {int(total[1])} examples by itself has a "
            "gradient of 0, so their Fisher information is 0. A loss among the rows "
            "of a batch, such as in_batch_contrastive, says nothing of one row; take "
            "a loss of single examples."
        )


def _add_batch(
    apply_fn: ApplyFn,
    loss_fn: LossFn,
    draw_fn: DrawFn | None,
    total: Total,
    moving: Params,
    rest: Params,
    batch: Batch,
    key: jax.Array | None,
) -> Total:
    """Add every example of a batch to the sum, one at a time."""

    def loss_of(moving: Params, example: Batch, key: jax.Array | None) -> Any:
        outputs = apply_fn(combine(moving, rest), example, key=None)
        if draw_fn is not None:
            assert key is not None
            drawn = draw_fn(jax.lax.stop_gradient(outputs), example, key)
            example = {**example, "targets": drawn}
        return loss_fn(outputs, example)

    def add(total: Total, row: Any) -> tuple[Total, None]:
        index, values = row
        example = jax.tree.map(lambda x: x[None], values)
        here = None if key is None else jax.random.fold_in(key, index)
        grads, weight = jax.grad(loss_of, has_aux=True)(moving, example, here)
        real = weight > 0
        squares = jax.tree.map(
            lambda s, g: s + jnp.where(real, jnp.square(g.astype(s.dtype)), 0.0),
            total[0],
            grads,
        )
        return (squares, total[1] + real.astype(jnp.int32)), None

    num_rows = len(jax.tree.leaves(batch)[0])
    total, _ = jax.lax.scan(add, total, (jnp.arange(num_rows), batch))
    return total
