# SPDX-License-Identifier: Apache-2.0
"""How far two outputs for the same batch are apart, one function a kind of task.

Each is summed over what the loss of its kind is summed over, so that it is divided by
that loss's weight: real targets, entries, ends or rows. The outputs before the batch
are the ones believed; for R-Drop both take that place in turn.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from jft.train.losses import Array, at_least_float32, row_mask, span_scores, target_mask
from jft.types import Batch


@runtime_checkable  # so that annotations can be checked under pytest
class DivergenceFn(Protocol):
    """A divergence of two outputs, 0 where they are equal."""

    def __call__(
        self, believed: Any, outputs: Any, batch: Batch, *, temperature: float
    ) -> jax.Array:
        """Return the sum over the batch's real rows; both are divided by it first."""


def softmax_divergence(
    believed: Array, outputs: Array, batch: Batch, *, temperature: float
) -> jax.Array:
    """``Σ_c p_c log(p_c / q_c)`` of classes or tokens ``[B, …, C]``; one of them holds.

    Targets that are `IGNORED` count nowhere, as in the cross-entropy.
    """
    mask = target_mask(batch["targets"], batch["loss_mask"], dtype=jnp.float32)
    return jnp.sum(_softmax_kl(believed, outputs, temperature) * mask)


def sigmoid_divergence(
    believed: Array, outputs: Array, batch: Batch, *, temperature: float
) -> jax.Array:
    """The same of each class ``[B, C]`` on its own: it holds or does not."""
    p, q = (at_least_float32(x) / temperature for x in (believed, outputs))
    log_yes = jax.nn.log_sigmoid(p) - jax.nn.log_sigmoid(q)
    log_no = jax.nn.log_sigmoid(-p) - jax.nn.log_sigmoid(-q)
    losses = jax.nn.sigmoid(p) * log_yes + jax.nn.sigmoid(-p) * log_no
    return jnp.sum(losses * row_mask(p.shape, batch["loss_mask"], dtype=p.dtype))


def span_divergence(
    believed: Array, outputs: Array, batch: Batch, *, temperature: float
) -> jax.Array:
    """The same of an answer's start and end ``[B, L, 2]`` over the real tokens.

    The mean over both ends, as in the cross-entropy.
    """
    real = batch.get("attention_mask")
    kl = _softmax_kl(
        span_scores(believed, real), span_scores(outputs, real), temperature
    )
    mask = target_mask(batch["targets"], batch["loss_mask"], dtype=kl.dtype)
    return jnp.sum(kl * mask) / 2


def squared_divergence(
    believed: Array, outputs: Array, batch: Batch, *, temperature: float
) -> jax.Array:
    """Squared difference of numbers ``[B]`` or ``[B, 1]``.

    In a distillation, which multiplies by its square, the temperature cancels.
    """
    p, q = (at_least_float32(x).reshape(-1) / temperature for x in (believed, outputs))
    mask = row_mask(p.shape, batch["loss_mask"], dtype=p.dtype)
    return jnp.sum(jnp.square(p - q) * mask)


DIVERGENCES: Mapping[str, DivergenceFn] = {
    "sigmoid": sigmoid_divergence,
    "softmax": softmax_divergence,
    "span": span_divergence,
    "squared": squared_divergence,
}


def _softmax_kl(p: Array, q: Array, temperature: float) -> jax.Array:
    log_p = jax.nn.log_softmax(at_least_float32(p) / temperature)
    log_q = jax.nn.log_softmax(at_least_float32(q) / temperature)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
