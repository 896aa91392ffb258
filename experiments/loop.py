# SPDX-License-Identifier: Apache-2.0
"""The training loop: what is at work in it, and what happens between its steps."""

import time
from pathlib import Path
from typing import NamedTuple

from experiments import training, two_heads
from experiments.activations import Activations
from experiments.build import Job
from experiments.feed import Stream
from experiments.judge import Judges
from experiments.keep import RunCheckpoints
from experiments.records import Records
from jft import checkpoint, processes, train
from jft.models.cudnn import attentions_traced, describe_attention
from jft.types import Interrupted


class Run(NamedTuple):
    """What is at work while a job trains; its state goes from hand to hand."""

    job: Job
    train_step: train.TrainStep
    stream: Stream
    kept: Activations  # of frozen layers, which the stream may read
    judges: Judges
    memory: train.MemoryPlan  # of the largest step
    compile_seconds: float  # likewise
    stop: checkpoint.StopSignal


def make_run(
    job: Job, stop: checkpoint.StopSignal, *, activations: Path
) -> tuple[Run, train.TrainState]:
    """Place the state of step 0, and compile the largest step to know its memory.

    Args:
      job: what to train.
      stop: asks for an end before the end.
      activations: the folder of those that are kept.

    Returns:
      What is at work, and the state.

    Raises:
      InputError: if it does not fit a device.
    """
    state, shardings = training.place_state(job)
    train_step = training.make_train_step(job, state_shardings=shardings)
    place = training.make_place_for_step(job)
    asking = two_heads.add_old_answers(job.config, job.old, place)
    began = time.perf_counter()
    with attentions_traced() as attentions:
        memory = training.plan_memory(job, train_step, state, asking)
    seconds = time.perf_counter() - began
    print(
        f"\n{train.describe_memory(memory, train.device_bytes())}\n"
        f"{describe_attention(attentions)}\n",
        flush=True,
    )
    stream = Stream(job.loader, asking)
    kept = Activations(
        job, stream, place=place, folder=activations, stop_requested=stop.poll
    )
    judges = Judges(job, kept, stop_requested=stop.poll)
    run = Run(job, train_step, stream, kept, judges, memory, seconds, stop)
    return run, state


def begin(
    run: Run, state: train.TrainState, history: train.History, records: Records
) -> train.TrainState:
    """Look back at the source task, where the run is new.

    Returns:
      The state, with what the optimizer has to know of the source task.
    """
    if history:
        return state
    if run.job.config.optim.ewc.strength:
        state = training.with_fisher(run.job, state)
    if (source := run.judges.source) is not None:
        scores = source.scores(run.job.model.params)
        records.add(history, {"step": 0, "split": "source", **scores})
    return state


def train_steps(
    run: Run,
    state: train.TrainState,
    history: train.History,
    records: Records,
    checkpoints: RunCheckpoints,
) -> train.FitResult:
    """Go through all steps, and save the last.

    Raises:
      Interrupted: when a stop was asked for; what was done is saved.
    """
    job = run.job
    with train.ProgressBar(
        examples_per_step=job.config.data.global_batch_size,
        metric=job.config.evals.metric,
        enabled=processes.is_main(),
    ) as bar:
        result = train.fit(
            state,
            run.train_step,
            batches=run.stream,
            num_steps=job.plan.num_steps,
            open_groups_at=job.plan.open_groups_at,
            start_phase=run.kept.start_phase,
            hooks=[*make_hooks(run, records, checkpoints), bar],
            history=history,
            stop_requested=run.stop.poll,
        )
    run.stream.close()
    checkpoints.save(result.state, result.history)
    checkpoints.wait()
    if result.stopped == "interrupted":
        raise Interrupted(
            f"saved step {int(result.state.step)} of {job.plan.num_steps} in "
            f"{checkpoints.directory}"
        )
    run.kept.close()
    return result


def make_hooks(
    run: Run, records: Records, checkpoints: RunCheckpoints
) -> list[train.Hook]:
    """Log, evaluate, save, and know when to stop, in this order."""
    config, plan = run.job.config, run.job.plan
    metric, mode = config.evals.metric, config.evals.mode
    patience = config.evals.early_stop_patience

    def evaluate(split: str) -> train.Hook:
        return train.evaluate_every(
            plan.eval_every,
            lambda moment: run.judges.measure(split, moment.state),
            record=records.add,
            split=split,
        )

    def save(moment: train.Moment) -> None:
        checkpoints.save(moment.state, moment.history)

    def last_good() -> str:
        return f"{checkpoints.latest_step()} in {checkpoints.directory}"

    hooks = [
        train.log_metrics(plan.log_every, record=records.add),
        *map(evaluate, run.judges.splits),
        train.save_every(plan.save_every, save),
        train.save_best(metric, mode=mode, save=save),
    ]
    if patience is not None:
        start = plan.last_opening
        hooks.append(
            train.stop_early(metric, mode=mode, patience=patience, start_step=start)
        )
    hooks.append(train.stop_on_nonfinite(config.train.max_nonfinite_steps, last_good))
    return hooks
