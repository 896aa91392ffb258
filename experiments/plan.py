# SPDX-License-Identifier: Apache-2.0
"""Everything of a run that is counted in steps: its length, and what happens when."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jft
from jft import optim, partition, paths, train
from jft.config import Config, Duration, OptimConfig, to_steps
from jft.types import Group, InputError, ParamLabels, Schedule


class Plan(NamedTuple):
    """Everything of a run that is counted in steps."""

    num_steps: int
    log_every: int
    eval_every: int
    save_every: int
    keep_every: int | None
    open_at: Mapping[Group, Any] | None  # None: everything from the start
    auto_rgn: int | None  # steps between two measures of relative gradients
    swa: tuple[int, int] | None  # the start of the plain mean, and how often
    schedule: Schedule
    phases: list[train.Phase]  # empty where they are not known before the run
    # (step, records so far) -> what moves in it; None: the optimizer's gates decide
    open_groups_at: Callable[[int, train.History], train.OpenGroups]

    @property
    def last_opening(self) -> int:
        """The step of the last change of what is open, as far as it is known."""
        return self.phases[-1].start if self.phases else 0


def make_plan(
    config: Config, model: jft.Pretrained, labels: ParamLabels, steps_per_epoch: float
) -> Plan:
    """Turn durations into steps and the unfreezing method into opening steps."""

    def steps(duration: Duration, num_steps: int | None = None) -> int:
        return to_steps(
            duration,
            steps_per_epoch=steps_per_epoch,
            examples_per_step=config.data.global_batch_size,
            num_steps=num_steps,
        )

    num_steps = steps(config.train.num)
    if num_steps < 1:
        given = config.train.num
        raise InputError(f"train.num is {given}, a run of no step; expected 1 or more.")

    def every(duration: Duration) -> int:
        return max(1, steps(duration, num_steps))

    keep, rgn = config.checkpoint.keep_every, config.optim.auto_rgn_every
    swa = _swa(config.optim, num_steps, steps, every)
    schedule = _make_schedule(config.optim, num_steps, steps)
    open_at = _open_at(config.optim, model, labels, lambda d: steps(d, num_steps))
    known = open_at is not None and config.optim.unfreeze.method != "plateau"
    phases = train.phases(open_at, num_steps) if known else []
    return Plan(
        num_steps=num_steps,
        log_every=every(config.train.log_every),
        eval_every=every(config.evals.eval_every),
        save_every=every(config.checkpoint.save_every),
        keep_every=None if keep is None else every(keep),
        open_at=open_at,
        auto_rgn=None if rgn is None else every(rgn),
        swa=swa,
        schedule=schedule,
        phases=phases,
        open_groups_at=_open_groups_at(config, open_at, phases),
    )


def largest_groups(config: Config, plan: Plan) -> train.OpenGroups:
    """The most that moves in any step, as `Plan.open_groups_at` would name it."""
    if plan.open_at is None or config.train.phases == "gated":
        return None
    if not plan.phases:
        return frozenset(plan.open_at)
    return max(plan.phases, key=lambda phase: len(phase.trainable)).trainable


def _open_groups_at(
    config: Config, open_at: Mapping[Group, Any] | None, phases: list[train.Phase]
) -> Callable[[int, train.History], train.OpenGroups]:
    """Which layers move at a step, given the records so far."""
    if open_at is None or config.train.phases == "gated":
        return lambda step, history: None
    if config.optim.unfreeze.method != "plateau":
        return train.groups_at(phases)
    return lambda step, history: optim.plateau_opening(
        [
            r[config.evals.metric]
            for r in history
            if r["split"] == "validation" and r["step"] <= step
        ],
        groups=list(open_at),
        patience=config.optim.unfreeze.patience,
        min_delta=config.optim.unfreeze.min_delta,
        mode=config.evals.mode,
    )


def _swa(
    config: OptimConfig,
    num_steps: int,
    steps: Callable[[Duration, int], int],
    every: Callable[[Duration], int],
) -> tuple[int, int] | None:
    """When the plain mean starts, and how often a step is taken into it."""
    if (begin := config.swa_start) is None:
        return None
    if (start := steps(begin, num_steps)) >= num_steps:
        raise InputError(
            f"optim.swa_start is {begin}, step {start}, but the run ends after "
            f"step {num_steps}, so nothing would be averaged; start earlier."
        )
    return start, every(config.swa_every)


def _make_schedule(
    config: OptimConfig, num_steps: int, steps: Callable[[Duration, int], int]
) -> Schedule:
    """The learning rate of each step: of one run, or of a probe and a run after it."""
    if twice := {"peak", "num_steps", "warmup_steps"} & set(config.schedule_options):
        raise InputError(
            f"optim.schedule_options has {sorted(twice)}, which a run takes from "
            "optim.learning_rate, its own length and optim.warmup_percent; set these."
        )

    def part(rate: float, length: int) -> Schedule:
        return optim.make_schedule(
            config.schedule,
            rate,
            num_steps=length,
            warmup_steps=steps(config.warmup, length),
            **config.schedule_options,
        )

    if config.unfreeze.method != "lp_ft":
        return part(config.learning_rate, num_steps)
    probe = steps(config.unfreeze.probe, num_steps)
    if not 0 < probe < num_steps:
        raise InputError(
            f"optim.unfreeze.probe is {config.unfreeze.probe}, {probe} of the run's "
            f"{num_steps} steps; expected at least one, and less than all."
        )
    rate = config.unfreeze.finetune_learning_rate or config.learning_rate
    return optim.follow_schedule(
        part(config.learning_rate, probe), part(rate, num_steps - probe), at=probe
    )


def _open_at(
    config: OptimConfig,
    model: jft.Pretrained,
    labels: ParamLabels,
    steps: Callable[[Duration], int],
) -> Mapping[Group, Any] | None:
    """When each layer that has anything trainable opens; None: all from the start."""
    unfreeze = config.unfreeze
    every = max(1, steps(unfreeze.every))
    layers = range(model.num_layers + 2)
    open_at: dict[str, Mapping[Any, Any]] = {
        "none": {},
        "top_down": optim.top_down(
            model.num_layers, every=every, start=steps(unfreeze.start)
        ),
        "chain_thaw": optim.chain_thaw(model.num_layers, every=every),
        "lp_ft": optim.lp_ft(
            model.num_layers, probe_steps=max(1, steps(unfreeze.probe))
        ),
        "explicit": dict(unfreeze.open_at),
        "plateau": dict.fromkeys(reversed(layers), ()),
    }
    if unfreeze.method == "none":
        return None
    moving = moving_layers(model, labels)
    if unfreeze.method == "lp_ft" and len(moving) == 1:
        raise InputError(
            f'optim.unfreeze.method is "lp_ft", but only layer {min(moving)} ever '
            'moves: there is nothing to open after the probe. Set it to "none", or let '
            "partition.rules move more."
        )
    if unfreeze.method == "explicit":
        _check_explicit(unfreeze.open_at, moving)
    chosen = open_at[unfreeze.method]
    return {layer: when for layer, when in chosen.items() if layer in moving}


def moving_layers(model: jft.Pretrained, labels: ParamLabels) -> set[int]:
    """The layers that have trainable parameters."""
    return {
        model.layer_index(path)
        for path, label in paths.flatten(labels).items()
        if partition.is_trainable(label)
    }


def _check_explicit(
    open_at: Sequence[tuple[int, int]], moving: Collection[int]
) -> None:
    """Refuse pairs that do not name each layer with trainable parameters once."""
    named = sorted(layer for layer, _ in open_at)
    if named != sorted(moving):
        raise InputError(
            f"optim.unfreeze.open_at names the layers {named}, but the layers with "
            f"trainable parameters are {sorted(moving)}; give each of them one "
            "[layer, step] pair."
        )
