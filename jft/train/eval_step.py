# SPDX-License-Identifier: Apache-2.0
"""One step of an evaluation: a forward, its loss, and what to keep of each row."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from jft.train.chunked_loss import Chunks, score_tokens
from jft.train.state import cast_floating
from jft.types import ApplyFn, Batch, LossFn, Params

PredictFn = Callable[[Any, Batch], Mapping[str, jax.Array]]


def make_eval_step(
    apply_fn: ApplyFn,
    loss_fn: LossFn,
    *,
    predict: PredictFn = lambda outputs, batch: {"logits": outputs},
    compute_dtype: Any = None,
    chunks: Chunks | None = None,
) -> Callable[[Params, Batch], dict[str, Any]]:
    """Make the jitted ``eval_step(params, batch)``: no dropout, nothing updated.

    Args:
      apply_fn: the model's forward.
      loss_fn: ``(outputs, batch) -> (sum, weight)``.
      predict: ``(outputs, batch) -> {field: [B, ...]}``, what to keep of each row: as
        little as scoring needs, for it goes to the host.
      compute_dtype: as for `make_train_step`.
      chunks: likewise; what is kept of each row must be sums over its tokens too.

    Returns:
      A function to ``{"rows", "loss_sum", "weight"}``.
    """

    def score(outputs: Any, batch: Batch) -> tuple[jax.Array, dict[str, Any]]:
        loss_sum, weight = loss_fn(outputs, batch)
        rows = dict(predict(outputs, batch))
        return loss_sum, {"rows": rows, "loss_sum": loss_sum, "weight": weight}

    def eval_step(params: Params, batch: Batch) -> dict[str, Any]:
        inputs = batch
        if compute_dtype is not None:
            params, inputs = cast_floating((params, batch), compute_dtype)
        _, scored = score_tokens(
            apply_fn, params, inputs, batch, score, key=None, chunks=chunks
        )
        return scored

    return jax.jit(eval_step)
