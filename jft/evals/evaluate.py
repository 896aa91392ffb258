# SPDX-License-Identifier: Apache-2.0
"""Run a model over an evaluation set and keep what scoring needs of its real rows."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Int

from jft import processes
from jft.types import Batch, InputError, Interrupted, Params

EvalStep: TypeAlias = Callable[[Params, Batch], Mapping[str, Any]]
Rows: TypeAlias = Mapping[str, list[Any]]  # field -> what is kept of each row, by index

_BATCH_FIELDS = ("index", "loss_mask")


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What a model says about an evaluation set, padding dropped, by ``index``."""

    loss: float  # mean over the set
    rows: Rows  # each field of the step's "rows"; a row may be longer than another
    index: Int[np.ndarray, " N"]  # each row's position in its source, ascending


def evaluate(
    eval_step: EvalStep,
    params: Params,
    batches: Iterable[Batch],
    *,
    stop_requested: Callable[[], bool] = lambda: False,
) -> Evaluated:
    """Run a model on every real row of ``batches``, each counted once.

    Rows whose ``loss_mask`` is 0 are padding and count nowhere. The result is in the
    order of ``index`` and so does not depend on the order of the batches, their size,
    devices or processes. The loss is the sum of ``loss_sum`` over the sum of
    ``weight``. `jft.tasks.score` makes metrics of it.

    Args:
      eval_step: ``(params, batch) -> {"rows": {field: [B, ...]}, "loss_sum": [],
        "weight": []}``, sums over the whole (global) batch.
      params: what ``eval_step`` takes.
      batches: dicts with ``loss_mask`` and ``index`` ``[B]``. In several processes each
        batch must be global arrays, already placed on the devices.
      stop_requested: asked before each batch; in several processes all must answer
        alike, since the others would wait for ever.

    Returns:
      The loss and the rows, on the host.

    Raises:
      Interrupted: when ``stop_requested`` answers true.
      InputError: for a batch without a needed field, no real row, or one that comes
        twice.
    """
    rows: list[Mapping[str, np.ndarray]] = []
    loss_sum, weight = 0.0, 0.0
    for batch, outputs in _one_behind(eval_step, params, batches, stop_requested):
        rows.append(_real_rows(batch, outputs["rows"]))
        loss_sum += float(_to_host(outputs["loss_sum"]))
        weight += float(_to_host(outputs["weight"]))
    if sum(len(batch["index"]) for batch in rows) == 0:
        raise InputError(
            "no real example to evaluate: the set is empty or every loss_mask is 0."
        )
    index = np.concatenate([batch["index"] for batch in rows])
    order = np.argsort(index, kind="stable")
    _check_once(index[order])
    by_field = {}
    for name in sorted(set(rows[0]) - {"index"}):
        values = [row for batch in rows for row in batch[name]]
        by_field[name] = [values[i] for i in order]
    return Evaluated(
        loss=loss_sum / weight if weight else float("nan"),
        rows=by_field,
        index=index[order],
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


def _real_rows(batch: Batch, rows: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Fetch the rows that are no padding, and their ``index``."""
    real = _to_host(batch["loss_mask"]) > 0
    fetched = {name: _to_host(x)[real] for name, x in rows.items()}
    wide = {name: _numpy_float(x) for name, x in fetched.items()}
    return {**wide, "index": _to_host(batch["index"])[real]}


def _numpy_float(x: np.ndarray) -> np.ndarray:
    """Bfloat16, which numpy does not know, as float32."""
    known = np.issubdtype(x.dtype, np.number) or x.dtype == np.bool_
    return x if known else x.astype(np.float32)


def _to_host(x: Any) -> np.ndarray:
    """Fetch a whole array, from the other processes too."""
    if not isinstance(x, jax.Array) and jax.process_count() > 1:
        raise InputError(
            f"with {jax.process_count()} processes evaluate needs global device "
            "arrays, but was given a host array, which may be one process's share. "
            "Put each batch on the mesh first."
        )
    return processes.whole(x)


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
