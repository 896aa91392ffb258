# SPDX-License-Identifier: Apache-2.0
"""How a run is kept: its checkpoints, where it goes on, and its best model."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
from absl import flags

import jft
from experiments import build, training
from jft import checkpoint, optim, partition, paths, processes, train
from jft.config import Config, config_digest, read_config
from jft.types import InputError, Params


class RunCheckpoints:
    """The checkpoints of a run, with its rules of what to keep; open it by ``with``.

    Args:
      job: the run.
      directory: of its checkpoints.
    """

    def __init__(self, job: build.Job, directory: Path) -> None:
        self.directory = directory.absolute()
        self._job = job
        # what must be the same when it resumes
        self._manifest = checkpoint.Manifest(
            base=job.config.model.pretrained or "scratch",
            base_digest=checkpoint.tree_digest(job.model.params),
            labels=paths.flatten(job.labels),
            config_digest=config_digest(job.config),
        )
        self._saved: tuple[int, int] | None = None  # step and number of records

    def __enter__(self) -> "RunCheckpoints":
        config = self._job.config
        self._checkpoints = checkpoint.Checkpoints(
            self.directory,
            keep_last=config.checkpoint.keep_last,
            keep_every=self._job.plan.keep_every,
            keep_best=config.checkpoint.keep_best,
            best_mode=config.evals.mode,
        )
        self._checkpoints.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._checkpoints.__exit__(*error)

    def check_alike(self) -> None:
        """Refuse processes that were not started alike. Collective.

        Raises:
          InputError: naming a process, and what it has otherwise than the main one.
        """
        job = self._job
        mine = {
            "config": self._manifest.config_digest,
            "model": self._manifest.base_digest,
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

    def resume(self, state: train.TrainState) -> tuple[train.TrainState, train.History]:
        """The newest saved state and its records; ``state`` and none for a new run."""
        self._checkpoints.tidy()  # all may be saved already, so no save would do it
        if checkpoint.choose_start(self._checkpoints).kind != "resume":
            return state, []
        restored = self._checkpoints.restore_latest(
            self._arrays(state),
            expect=self._manifest,
            on_corrupt=self._job.config.checkpoint.on_corrupt,
        )
        for reason in restored.skipped if processes.is_main() else ():
            print(reason, file=sys.stderr)
        step = self._job.loader.check_state(restored.data_state)
        print(f"going on from step {step} in {self.directory}", flush=True)
        state = checkpoint.with_arrays(state, restored.arrays)
        self._saved = (int(jax.device_get(state.step)), len(restored.history))
        return state, restored.history

    def save(self, state: train.TrainState, history: train.History) -> None:
        """Save a state and the records so far, unless they are saved.

        A step is saved once more where records of it were added: a stop signal may
        have come before its evaluation.
        """
        job, step = self._job, int(jax.device_get(state.step))
        if self._saved == (step, len(history)):
            return
        scores = [
            r[job.config.evals.metric]
            for r in history
            if r["split"] == "validation" and r["step"] == step
        ]
        groups = job.plan.open_groups_at(max(step - 1, 0), history) or ()
        self._checkpoints.save(
            step,
            self._arrays(state),
            data_state=job.loader.state(step),
            history=history,
            manifest=dataclasses.replace(
                self._manifest, open_groups=tuple(sorted(map(str, groups)))
            ),
            best_value=scores[0] if scores else None,
        )
        self._saved = (step, len(history))

    def wait(self) -> None:
        """Wait until what was saved is on the disk."""
        self._checkpoints.wait()

    def latest_step(self) -> int | None:
        """The newest step that is saved."""
        return self._checkpoints.latest_step()

    def restore_best(self, state: train.TrainState) -> train.TrainState:
        """The state of the best step, or of the newest where none was evaluated.

        ``state`` is any of the run, in whose place it comes.
        """
        step = self._checkpoints.best_step()
        if step is None:  # nothing was evaluated
            step = self.latest_step()
        assert step is not None
        restored = self._checkpoints.restore(
            step, self._arrays(state), expect=self._manifest
        )
        return checkpoint.with_arrays(state, restored.arrays)

    def _arrays(self, state: train.TrainState) -> Any:
        return checkpoint.state_arrays(state, full=self._job.config.checkpoint.full)


def trained_params(job: build.Job, state: train.TrainState) -> Params:
    """The parameters to keep: what moved, over the base as it was loaded.

    In the state what is frozen may be of the dtype to compute in.
    """
    trainable = optim.eval_params(state.opt_state, state.trainable)
    return partition.combine(trainable, job.model.params)


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
    with RunCheckpoints(job, workdir / "checkpoints") as checkpoints:
        if checkpoints.latest_step() is None:
            raise InputError(
                f"{workdir} has no checkpoint yet; let its run save one first."
            )
        best = checkpoints.restore_best(training.init_state(job))
    return job, trained_params(job, best)
