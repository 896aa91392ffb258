# SPDX-License-Identifier: Apache-2.0
"""How a run is kept: its checkpoints, where it goes on, and its best model."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from absl import flags

import jft
from experiments import build, training
from jft import checkpoint, optim, partition, paths, processes, train
from jft.config import Config, config_digest, read_config
from jft.types import InputError, Params


def make_checkpoints(job: build.Job, directory: Path) -> checkpoint.Checkpoints:
    """The checkpoints of a run, with its rules of what to keep."""
    config = job.config
    return checkpoint.Checkpoints(
        directory,
        keep_last=config.checkpoint.keep_last,
        keep_every=job.plan.keep_every,
        keep_best=config.checkpoint.keep_best,
        best_mode=config.evals.mode,
    )


def make_manifest(job: build.Job) -> checkpoint.Manifest:
    """The identity of a run: what must be the same when it resumes."""
    return checkpoint.Manifest(
        base=job.config.model.pretrained or "scratch",
        base_digest=checkpoint.tree_digest(job.model.params),
        labels=paths.flatten(job.labels),
        config_digest=config_digest(job.config),
    )


def check_alike(job: build.Job, manifest: checkpoint.Manifest) -> None:
    """Refuse processes that were not started alike. Collective.

    Raises:
      InputError: naming a process, and what it has otherwise than the main one.
    """
    mine = {
        "config": manifest.config_digest,
        "model": manifest.base_digest,
        "data": checkpoint.json_digest(
            [job.loader.settings, *map(repr, job.tables.values())]
        ),
    }
    first, *others = processes.gather(mine)
    for index, other in enumerate(others, start=1):
        if differ := [name for name in first if other[name] != first[name]]:
            raise InputError(
                f"process {index} has another {', '.join(differ)} than process 0. "
                "Start all processes with the same command, and give all hosts the "
                "same files."
            )


SaveFn = Callable[[train.TrainState, train.History], None]


def make_save(
    job: build.Job,
    checkpoints: checkpoint.Checkpoints,
    *,
    manifest: checkpoint.Manifest,
    state: train.TrainState,
    history: train.History,
) -> SaveFn:
    """A function that saves a state and the records so far, unless they are saved.

    A step is saved once more where records of it were added: a stop signal may have
    come before its evaluation.
    """
    resumed = checkpoints.latest_step() is not None
    saved = (int(state.step), len(history)) if resumed else None

    def save(state: train.TrainState, history: train.History) -> None:
        nonlocal saved
        step = int(jax.device_get(state.step))
        if saved == (step, len(history)):
            return
        scores = [
            r[job.config.evals.metric]
            for r in history
            if r["split"] == "validation" and r["step"] == step
        ]
        groups = job.plan.open_groups_at(max(step - 1, 0), history) or ()
        checkpoints.save(
            step,
            checkpoint.state_arrays(state, full=job.config.checkpoint.full),
            data_state=job.loader.state(step),
            history=history,
            manifest=dataclasses.replace(
                manifest, open_groups=tuple(sorted(map(str, groups)))
            ),
            best_value=scores[0] if scores else None,
        )
        saved = (step, len(history))

    return save


def resume(
    job: build.Job,
    checkpoints: checkpoint.Checkpoints,
    *,
    manifest: checkpoint.Manifest,
    state: train.TrainState,
) -> tuple[train.TrainState, train.History]:
    """The newest saved state and its records; ``state`` and none for a new run."""
    checkpoints.tidy()  # all may be saved already, so that no save would do it
    if checkpoint.choose_start(checkpoints).kind != "resume":
        return state, []
    restored = checkpoints.restore_latest(
        checkpoint.state_arrays(state, full=job.config.checkpoint.full),
        expect=manifest,
        on_corrupt=job.config.checkpoint.on_corrupt,
    )
    for reason in restored.skipped if processes.is_main() else ():
        print(reason, file=sys.stderr)
    step = job.loader.check_state(restored.data_state)
    print(f"going on from step {step} in {checkpoints.directory}", flush=True)
    return checkpoint.with_arrays(state, restored.arrays), restored.history


def eval_params(state: train.TrainState) -> Params:
    """The parameters to judge: averaged where the optimizer keeps an average."""
    trainable = optim.eval_params(state.opt_state, state.trainable)
    return partition.combine(trainable, state.frozen)


def trained_params(state: train.TrainState) -> Params:
    """The same without what is frozen, which may be held in the compute dtype."""
    return optim.eval_params(state.opt_state, state.trainable)


def restore_best(
    job: build.Job,
    checkpoints: checkpoint.Checkpoints,
    *,
    manifest: checkpoint.Manifest,
    state: train.TrainState,
) -> train.TrainState:
    """The state of the best step, or of the newest where none was evaluated."""
    step = checkpoints.best_step()
    if step is None:  # nothing was evaluated
        step = checkpoints.latest_step()
    assert step is not None
    restored = checkpoints.restore(
        step,
        checkpoint.state_arrays(state, full=job.config.checkpoint.full),
        expect=manifest,
    )
    return checkpoint.with_arrays(state, restored.arrays)


def define_model_flags(values: Any) -> None:
    """Define ``--workdir`` and ``--model``, of which a script takes exactly one."""
    flags.DEFINE_string("workdir", None, "Folder of a run; its best step.", values)
    flags.DEFINE_string("model", None, "Folder in Hugging Face layout.", values)


def load_trained(values: Any) -> tuple[jft.Pretrained, Config | None]:
    """The model that the flags name, and the config of its run if it is one's."""
    workdir, folder = values["workdir"].value, values["model"].value
    if (workdir is None) == (folder is None):
        raise InputError(
            f"give exactly one of --workdir and --model; got --workdir={workdir} and "
            f"--model={folder}."
        )
    if folder is not None:
        return processes.together(lambda: jft.load(folder)), None
    job, params = load_run(Path(workdir))
    return job.model._replace(params=params), job.config


def load_run(workdir: Path) -> tuple[build.Job, Params]:
    """The stages of a run up to its first step, and the parameters of its best one.

    Raises:
      InputError: if it has saved nothing yet.
    """
    job = build.make_job(read_config(workdir))
    with make_checkpoints(job, workdir / "checkpoints") as checkpoints:
        if checkpoints.latest_step() is None:
            raise InputError(
                f"{workdir} has no checkpoint yet; let its run save one first."
            )
        best = restore_best(
            job,
            checkpoints,
            manifest=make_manifest(job),
            state=training.init_state(job),
        )
    return job, partition.combine(trained_params(best), job.model.params)
