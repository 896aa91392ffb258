# SPDX-License-Identifier: Apache-2.0
"""Hooks for `fit`: plain functions of a `Moment`, made by the functions here.

What a hook decides (stop, which is best) is a function of the history alone, and the
history is part of every checkpoint: nothing else needs to be restored.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from jft.train.loop import History, Hook, Moment, Record
from jft.types import Metrics

MODES: Mapping[str, Callable[[float, float], bool]] = {
    "max": lambda new, best: new > best,
    "min": lambda new, best: new < best,
}


def best_record(
    history: Sequence[Record], metric: str, *, mode: str, split: str = "validation"
) -> Record | None:
    """The first record of ``split`` with the best finite value of ``metric``.

    >>> records = [{"step": s, "split": "validation", "acc": a}
    ...            for s, a in [(1, 0.5), (2, 0.7), (3, 0.7)]]
    >>> best_record(records, "acc", mode="max")["step"]
    2
    """
    best: Record | None = None
    for record in _of_split(history, split):
        value = record[metric]
        if math.isfinite(value) and (best is None or MODES[mode](value, best[metric])):
            best = record
    return best


RecordFn = Callable[[History, Record], None]


def log_metrics(every: int, *, record: RecordFn = list.append) -> Hook:
    """Record the training metrics every ``every`` steps and after the last."""

    def hook(moment: Moment) -> None:
        if moment.metrics is not None and _due(moment, every):
            fetched = jax.device_get(moment.metrics)  # all at once
            values = {name: float(value) for name, value in fetched.items()}
            record(moment.history, {"step": moment.step, "split": "train", **values})

    return hook


def evaluate_every(
    every: int,
    evaluate: Callable[[Moment], Mapping[str, float]],
    *,
    record: RecordFn = list.append,
    split: str = "validation",
) -> Hook:
    """Evaluate every ``every`` steps and after the last, once a step."""

    def hook(moment: Moment) -> None:
        done = any(r["step"] == moment.step for r in _of_split(moment.history, split))
        if moment.step > 0 and _due(moment, every) and not done:
            scores = evaluate(moment)
            record(moment.history, {"step": moment.step, "split": split, **scores})

    return hook


def save_every(every: int, save: Callable[[Moment], None]) -> Hook:
    """Save every ``every`` steps and after the last."""

    def hook(moment: Moment) -> None:
        if moment.metrics is not None and _due(moment, every):
            save(moment)

    return hook


def save_best(
    metric: str,
    *,
    mode: str,
    save: Callable[[Moment], None],
) -> Hook:
    """Save right after an evaluation that is the best so far."""

    def hook(moment: Moment) -> None:
        best = best_record(moment.history, metric, mode=mode)
        if best is not None and best["step"] == moment.step:
            save(moment)

    return hook


def stop_early(
    metric: str,
    *,
    mode: str,
    patience: int,
    start_step: int = 0,
) -> Hook:
    """Stop after ``patience`` evaluations in a row without a new best.

    Args:
      metric: name in the records of ``validation``.
      mode: "max" or "min".
      patience: evaluations.
      start_step: evaluations up to this step, such as the last opening, are not
        counted against the run.
    """

    def hook(moment: Moment) -> str | None:
        best = best_record(moment.history, metric, mode=mode)
        since = max(best["step"] if best else 0, start_step)
        waited = [
            r for r in _of_split(moment.history, "validation") if r["step"] > since
        ]
        if len(waited) < patience:
            return None
        return f"no better validation {metric} in {patience} evaluations"

    return hook


class NonFiniteError(RuntimeError):
    """Too many steps in a row had a loss or gradient that is not finite."""


def stop_on_nonfinite(limit: int, last_good: Callable[[], str]) -> Hook:
    """Abort once ``limit`` steps in a row were skipped as not finite.

    A step's count is read one step later, when it is known without waiting.

    Args:
      limit: skipped steps in a row.
      last_good: names the checkpoint to go back to, for the message.

    Raises:
      NonFiniteError: from the hook, with the step.
    """
    earlier: list[tuple[int, Metrics]] = []

    def hook(moment: Moment) -> None:
        if moment.metrics is not None:
            earlier.append((moment.step, moment.metrics))
        ready = len(earlier) if moment.step == moment.num_steps else len(earlier) - 1
        for step, metrics in earlier[: max(ready, 0)]:
            if int(jax.device_get(metrics["nonfinite_streak"])) >= limit:
                raise NonFiniteError(
                    f"loss or gradient was not finite in {limit} steps in a row, the "
                    f"last of them step {step}; none of them changed a parameter. "
                    f"Last good checkpoint: {last_good()}. Lower the learning rate, "
                    "clip gradients, or look at the data of these steps."
                )
        del earlier[: max(ready, 0)]

    return hook


class ProgressBar:
    """A hook: a bar with loss, metric, examples per second and time left.

    Args:
      examples_per_step: the global batch size.
      metric: shown beside the loss, of the last record that has it.
      enabled: False shows nothing.
    """

    def __init__(
        self, *, examples_per_step: int, metric: str, enabled: bool = True
    ) -> None:
        self._examples = examples_per_step
        self._names = ("loss", metric)
        self._enabled = enabled
        self._shown: dict[str, str] = {}
        self._bar: Any = None

    def __call__(self, moment: Moment) -> None:
        """Move the bar on."""
        from tqdm.auto import tqdm

        if self._bar is None:
            self._bar = tqdm(
                total=moment.num_steps * self._examples,
                initial=moment.step * self._examples,
                unit=" examples",
                disable=not self._enabled,
                dynamic_ncols=True,
            )
        for record in moment.history[-2:]:
            for name in self._names:
                if name in record:
                    self._shown[f"{record['split']} {name}"] = f"{record[name]:.3f}"
        if moment.metrics is not None:
            self._bar.set_postfix(self._shown, refresh=False)
            self._bar.update(self._examples)

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


def _of_split(history: Sequence[Record], split: str) -> list[Record]:
    return [record for record in history if record["split"] == split]


def _due(moment: Moment, every: int) -> bool:
    return moment.step % every == 0 or moment.step == moment.num_steps
