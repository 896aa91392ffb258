# SPDX-License-Identifier: Apache-2.0
"""Run a model over an evaluation set and score exactly its real examples."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float, Int

from jft.evals.metrics import check_metric_names, compute_metrics
from jft.types import Batch, InputError, Interrupted, Params

EvalStep: TypeAlias = Callable[[Params, Batch], Mapping[str, Any]]

_BATCH_FIELDS = ("index", "loss_mask", "targets")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a model says about an evaluation set, padding dropped, by ``index``."""

    scores: dict[str, float]  # "loss" and each metric
    num_examples: int  # N, the real ones
    logits: Float[np.ndarray, "N C"]
    targets: Int[np.ndarray, " N"]
    index: Int[np.ndarray, " N"]  # each example's position in its source, ascending

    @property
    def predictions(self) -> Int[np.ndarray, " N"]:
        """The class id with the highest logit."""
        return np.asarray(self.logits.argmax(axis=-1))


def evaluate(
    eval_step: EvalStep,
    params: Params,
    batches: Iterable[Batch],
    *,
    metric_names: Sequence[str],
    stop_requested: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Score a model on every real example of ``batches``, each counted once.

    Rows whose ``loss_mask`` is 0 are padding and count nowhere. The result is in the
    order of ``index`` and so does not depend on batch size, devices or processes. The
    loss is the sum of ``loss_sum`` over the sum of ``weight``.

    Args:
      eval_step: ``(params, batch) -> {"logits": [B, C], "loss_sum": [], "weight":
        []}``, sums over the whole (global) batch.
      params: what ``eval_step`` takes.
      batches: dicts with ``targets``, ``loss_mask`` and ``index`` ``[B]``. In several
        processes each batch must be global arrays, already placed on the devices.
      metric_names: keys of ``jft.evals.METRICS``.
      stop_requested: asked before each batch; in several processes all must answer
        alike, since the others would wait for ever.

    Returns:
      The scores and the rows they were computed from, on the host.

    Raises:
      Interrupted: when ``stop_requested`` answers true.
      InputError: for an unknown metric, a batch without a needed field, no real
        example, or one that comes twice.
    """
    check_metric_names(metric_names)
    rows: list[tuple[np.ndarray, ...]] = []
    loss_sum, weight = 0.0, 0.0
    for batch, outputs in _one_behind(eval_step, params, batches, stop_requested):
        rows.append(_real_rows(batch, outputs["logits"]))
        loss_sum += float(_to_host(outputs["loss_sum"]))
        weight += float(_to_host(outputs["weight"]))
    if sum(len(index) for index, _, _ in rows) == 0:
        raise InputError(
            "no real example to evaluate: the set is empty or every loss_mask is 0."
        )
    index, targets, logits = (
        np.concatenate(field) for field in zip(*rows, strict=True)
    )
    order = np.argsort(index, kind="stable")
    index, targets, logits = index[order], targets[order], logits[order]
    _check_once(index)
    scores = {"loss": loss_sum / weight if weight else float("nan")}
    scores |= compute_metrics(targets, logits, metric_names=metric_names)
    return Evaluation(
        scores=scores,
        num_examples=len(index),
        logits=logits,
        targets=targets,
        index=index,
    )


def _one_behind(
    eval_step: EvalStep,
    params: Params,
    batches: Iterable[Batch],
    stop_requested: Callable[[], bool],
) -> Iterator[tuple[Batch, Mapping[str, Any]]]:
    """Yield each batch with its outputs once the next step is already dispatched."""
    waiting: tuple[Batch, Mapping[str, Any]] | None = None
    for batch in batches:
        if stop_requested():
            raise Interrupted("a stop was requested during evaluation")
        _check_fields(batch)
        dispatched = (batch, eval_step(params, batch))
        if waiting is not None:
            yield waiting
        waiting = dispatched
    if waiting is not None:
        yield waiting


def _real_rows(batch: Batch, logits: Any) -> tuple[np.ndarray, ...]:
    """Fetch ``(index, targets, logits)`` of the rows that are no padding."""
    index, loss_mask, targets = (_to_host(batch[name]) for name in _BATCH_FIELDS)
    real = loss_mask > 0
    host_logits = _to_host(logits)
    if host_logits.dtype != np.float64:  # numpy knows no bfloat16
        host_logits = host_logits.astype(np.float32)
    return index[real], targets[real], host_logits[real]


def _to_host(x: Any) -> np.ndarray:
    """Fetch a whole array, from the other processes too."""
    if isinstance(x, jax.Array) and not (
        x.is_fully_addressable or x.is_fully_replicated
    ):
        return np.asarray(multihost_utils.process_allgather(x, tiled=True))
    if not isinstance(x, jax.Array) and jax.process_count() > 1:
        raise InputError(
            f"with {jax.process_count()} processes evaluate needs global device "
            "arrays, but was given a host array, which may be one process's share. "
            "Put each batch on the mesh first."
        )
    return np.asarray(jax.device_get(x))


def _check_fields(batch: Batch) -> None:
    missing = sorted(set(_BATCH_FIELDS) - set(batch))
    if missing:
        raise InputError(
            f"an evaluation batch lacks {missing}; it has {sorted(batch)}. Every batch "
            f"needs {list(_BATCH_FIELDS)}."
        )


def _check_once(index: np.ndarray) -> None:
    repeated = sorted(set(index[1:][index[1:] == index[:-1]].tolist()))
    if repeated:
        raise InputError(
            f"examples {repeated[:10]} (by index; {len(repeated)} in all) came more "
            "than once, so they would count double. Give padding rows loss_mask 0 and "
            "every example one row."
        )
