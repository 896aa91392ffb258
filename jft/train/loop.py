# SPDX-License-Identifier: Apache-2.0
"""Many steps: `fit` runs phases, and hooks do everything else."""

import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from jft.train.compiled_step import (
    CompiledStep,
    OpenGroups,
    TrainStep,
    shapes_of,
)
from jft.train.state import TrainState
from jft.types import Interrupted, Metrics

Record = dict[str, Any]  # {"step", "split", **values}; no clock inside
History = list[Record]


class Moment(NamedTuple):
    """What a hook sees after a step."""

    step: int  # steps taken
    num_steps: int
    state: TrainState
    metrics: Metrics | None  # of this step; None at once after a start or a resume
    history: History  # hooks append to it


Hook = Callable[[Moment], str | None]  # a reason to stop, or None


class PhaseReport(NamedTuple):
    """What one phase trained and what it cost."""

    start: int
    stop: int
    trainable_params: int
    step_flops: float  # as the compiler counts them; a mean over the phase's steps
    seconds: float  # wall time of its steps and hooks, without compilation
    compile_seconds: float
    num_programs: int  # that its steps ran, one a shape of batch


class FitResult(NamedTuple):
    """How a run ended."""

    state: TrainState
    history: History
    phases: list[PhaseReport]
    stopped: str  # "finished", "interrupted", or the reason that a hook gave


def fit(
    state: TrainState,
    train_step: TrainStep,
    *,
    batches: Callable[[int], Iterator[Any]],
    num_steps: int,
    open_groups_at: Callable[[int, History], OpenGroups] | None = None,
    start_phase: Callable[[int, OpenGroups, TrainState], bool] | None = None,
    hooks: Sequence[Hook] = (),
    history: History | None = None,
    stop_requested: Callable[[], bool] = lambda: False,
) -> FitResult:
    """Train from ``state.step`` to ``num_steps``.

    Each new set of open groups and shape of batch is compiled once, ahead of its first
    step. Hooks run after every step, in order, and once before the first one, so that
    a run that was interrupted between a step and its evaluation makes up for it.

    Args:
      state: where to start; consumed.
      train_step: from `make_train_step`.
      batches: ``batches(step)`` yields the placed batch of every step from ``step`` on.
      num_steps: steps of the whole run, those before a resume included.
      open_groups_at: ``(step, history) -> groups`` that move in this step; None, or a
        function that returns None, leaves the choice to the optimizer's gates.
      start_phase: called as ``(step, groups, state)`` before the first step of each
        phase; True asks for ``batches`` anew.
      hooks: called with a `Moment`; the first reason returned stops the run.
      history: records of the run so far; continued in a new list.
      stop_requested: polled between steps; hooks may raise `Interrupted` instead. In
        several processes all must answer alike.

    Returns:
      The final state, the history, a report a phase, and why the run stopped.
    """
    step = int(jax.device_get(state.step))
    history = list(history or [])
    timer = _PhaseTimer()
    reason = None
    try:
        if step and start_phase and open_groups_at:
            # what hooks may have to make up for belongs to the phase of the last step
            start_phase(step - 1, open_groups_at(step - 1, history), state)
        moment = Moment(step, num_steps, state, None, history)
        reason = _run_hooks(hooks, moment)
        stream = None
        while reason is None and step < num_steps:
            _raise_if(stop_requested)
            groups = open_groups_at(step, history) if open_groups_at else None
            if timer.is_new(groups):
                jax.block_until_ready(state.trainable)
                timer.leave(step)
                changed = start_phase is not None and start_phase(step, groups, state)
                if stream is None or changed:
                    stream = batches(step)
            assert stream is not None
            batch = next(stream)
            step_fn = timer.enter(step, groups, train_step, state, batch)
            state, metrics = step_fn(state, batch)
            step += 1
            moment = Moment(step, num_steps, state, metrics, history)
            reason = _run_hooks(hooks, moment)
    except Interrupted:
        reason = "interrupted"
    jax.block_until_ready(state.trainable)
    timer.leave(step)
    return FitResult(state, history, timer.reports, reason or "finished")


def _raise_if(stop_requested: Callable[[], bool]) -> None:
    if stop_requested():
        raise Interrupted


def _run_hooks(hooks: Sequence[Hook], moment: Moment) -> str | None:
    """Call all hooks, whatever one of them says, so that saving is never skipped."""
    reasons = [hook(moment) for hook in hooks]
    return next((reason for reason in reasons if reason), None)


Program = tuple[OpenGroups, Hashable]  # what a compiled step is compiled for


class _PhaseTimer:
    """Compiles ahead of what is new, and keeps a report a phase."""

    def __init__(self) -> None:
        self.reports: list[PhaseReport] = []
        self._programs: dict[Program, CompiledStep] = {}
        self._groups: Any = self  # equal to no set of groups
        self._start = 0
        self._since = 0.0
        self._compile_seconds = 0.0
        self._num_steps: Counter[Program] = Counter()  # of this phase

    def is_new(self, groups: OpenGroups) -> bool:
        """Whether a step with these groups begins a phase."""
        return bool(groups != self._groups)

    def enter(
        self,
        step: int,
        groups: OpenGroups,
        train_step: TrainStep,
        state: TrainState,
        batch: Any,
    ) -> CompiledStep:
        """Return the program of this step; a phase begins with the first new groups."""
        if self.is_new(groups):
            self._groups, self._start = groups, step
            self._since, self._compile_seconds = time.perf_counter(), 0.0
            self._num_steps.clear()
        program = (groups, shapes_of(batch))
        if program not in self._programs:
            jax.block_until_ready(state.trainable)  # else its time counts as compiling
            before = time.perf_counter()
            self._programs[program] = train_step.compile(
                state, batch, open_groups=groups
            )
            self._compile_seconds += time.perf_counter() - before
        self._num_steps[program] += 1
        return self._programs[program]

    def leave(self, step: int) -> None:
        """Write the report of the phase that ends before ``step``."""
        if self._groups is self:
            return
        ran = [(self._programs[key], n) for key, n in self._num_steps.items()]
        flops = sum(program.flops * n for program, n in ran)
        self.reports.append(
            PhaseReport(
                start=self._start,
                stop=step,
                trainable_params=ran[0][0].num_params,
                step_flops=flops / sum(n for _, n in ran),
                seconds=time.perf_counter() - self._since - self._compile_seconds,
                compile_seconds=self._compile_seconds,
                num_programs=len(ran),
            )
        )
        self._groups = self
