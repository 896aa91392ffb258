# SPDX-License-Identifier: Apache-2.0
"""What the records of a run say about trouble, in plain words."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jft import paths
from jft.types import LayerIndex, Params

Record = Mapping[str, Any]  # {"step": int, "split": str, **floats}
Points = Sequence[tuple[int, float]]  # step, value


# from where on something is called trouble
LOST_AGAIN = 0.02  # share of its best value that the validation metric lost again
EVALUATIONS_SINCE = 2  # after the best one, before anything is called overfitting
LOSS_LEFT = 0.9  # share of the first losses that is left at the end
FORGOTTEN = 0.05  # share of its first value that the source task's metric lost
LOSSES_APART = 1.5  # validation loss over training loss, at every evaluation
MOVED = 0.1  # how far a layer's pre-trained weights moved, as a share of their norm


def diagnose(
    history: Sequence[Record],
    *,
    metric: str,
    mode: str,
    source_metric: str = "accuracy",
    source_mode: str = "max",
    drift: Mapping[int, float] | None = None,
) -> list[str]:
    """Warn of overfitting, underfitting, forgetting, a gap between splits, and drift.

    Args:
      history: records of ``train``, ``validation`` and perhaps ``source``; those of
        ``train`` are of single batches, so they are averaged.
      metric: of validation.
      mode: "max" or "min": which way the metric is better.
      source_metric: of the source task.
      source_mode: which way that is better.
      drift: see `weight_drift`.

    Returns:
      A sentence each, with its figures; none where nothing is to be seen.

    Example:
      >>> losses = [("train", 1.0), ("validation", 1.0), ("train", 0.98),
      ...           ("validation", 0.99)]
      >>> history = [{"step": i, "split": split, "loss": x, "accuracy": 0.5}
      ...            for i, (split, x) in enumerate(losses)]
      >>> [text.partition(":")[0] for text in
      ...  diagnose(history, metric="accuracy", mode="max")]
      ['underfitting']
    """
    train = _finite(history, "train", "loss")
    evaluated = _finite(history, "validation", metric)
    found = [
        _overfitting(train, evaluated, metric, mode),
        _underfitting(train, _finite(history, "validation", "loss")),
        _forgetting(
            _finite(history, "source", source_metric), source_metric, source_mode
        ),
        _gap(train, _finite(history, "validation", "loss")),
        _drift(drift or {}),
    ]
    return [text for text in found if text]


def weight_drift(
    before: Params,
    after: Params,
    *,
    layer_index: LayerIndex,
    new: Iterable[str] = (),
) -> dict[int, float]:
    """How far each layer moved: ``|after - before| / |before|`` over its weights.

    Args:
      before: the pre-trained parameters.
      after: the same after training.
      layer_index: path to depth.
      new: paths that were drawn anew, so had nothing to lose.

    Returns:
      ``{depth: share}`` of the layers that moved at all.
    """
    flat, moved = paths.flatten(before), paths.flatten(after)
    left_out = set(new)
    sums: dict[int, list[float]] = {}
    for path, old in flat.items():
        if path in left_out or moved[path] is old:
            continue
        was = np.asarray(old, np.float32)
        change = np.asarray(moved[path], np.float32) - was
        both = sums.setdefault(layer_index(path), [0.0, 0.0])
        both[0] += float(np.square(change).sum())
        both[1] += float(np.square(was).sum())
    return {
        depth: math.sqrt(change / size)
        for depth, (change, size) in sorted(sums.items())
        if change and size
    }


def _finite(history: Sequence[Record], split: str, name: str) -> Points:
    """Step and value of each record that has the number."""
    return [
        (r["step"], r[name])
        for r in history
        if r["split"] == split and name in r and math.isfinite(r[name])
    ]


def _mean(values: Points, after: int, up_to: int | None = None) -> float | None:
    inside = [v for step, v in values if after < step and step <= (up_to or step)]
    return statistics.fmean(inside) if inside else None


def _overfitting(
    train: Points, evaluated: Points, metric: str, mode: str
) -> str | None:
    """The metric got worse after its best while the training loss went on falling."""
    if not evaluated:
        return None
    sign = 1 if mode == "max" else -1
    best_step, best = max(evaluated, key=lambda x: sign * x[1])
    since = [value for step, value in evaluated if step > best_step]
    before, after = _mean(train, -1, best_step), _mean(train, best_step)
    if len(since) < EVALUATIONS_SINCE or before is None or after is None:
        return None
    lost = sign * (best - since[-1])
    if lost <= LOST_AGAIN * abs(best) or after >= before:
        return None
    return (
        f"overfitting: from step {best_step} on validation {metric} went from "
        f"{best:.4g} to {since[-1]:.4g} while the training loss fell from "
        f"{before:.4g} to {after:.4g}. Stop earlier, let fewer layers move, or use "
        "more data."
    )


def _underfitting(train: Points, losses: Points) -> str | None:
    """Neither loss fell."""
    if len(train) < 2 or not losses:
        return None
    first = train[0][1]
    window = max(1, len(train) // 4)
    last = statistics.fmean(value for _, value in train[-window:])
    if min(last, losses[-1][1]) <= LOSS_LEFT * first:
        return None
    return (
        f"underfitting: the training loss went from {first:.4g} to {last:.4g} only. "
        "Raise the learning rate, train longer, or let more layers move."
    )


def _forgetting(source: Points, metric: str, mode: str) -> str | None:
    if len(source) < 2:
        return None
    before, after = source[0][1], source[-1][1]
    lost = before - after if mode == "max" else after - before
    if lost <= FORGOTTEN * abs(before):
        return None
    return (
        f"forgetting: the source task's {metric} went from {before:.4g} to "
        f"{after:.4g}. Let fewer layers move or later, pull towards the start "
        "(optim.l2_sp), or train an adapter."
    )


def _gap(train: Points, losses: Points) -> str | None:
    """Validation is far from training at every evaluation, so from the start."""
    ratios, earlier = [], -1
    for step, loss in losses:
        trained = _mean(train, earlier, step)
        if trained is None or trained <= 0:
            return None
        ratios.append(loss / trained)
        earlier = step
    if len(ratios) < 2 or min(ratios) <= LOSSES_APART:
        return None
    return (
        f"domain gap: from the first evaluation on, the validation loss is "
        f"{min(ratios):.2g} to {max(ratios):.2g} times the training loss. Check that "
        "both splits are of one kind."
    )


def _drift(drift: Mapping[int, float]) -> str | None:
    if not drift or max(drift.values()) <= MOVED:
        return None
    depth = max(drift, key=lambda d: drift[d])
    return (
        f"drift: the pre-trained weights of layer {depth} moved by "
        f"{drift[depth]:.0%} of their norm (over {MOVED:.0%}): their features "
        "are no longer those that were loaded. Lower the learning rate or let lower "
        "layers move less (optim.layer_decay)."
    )
