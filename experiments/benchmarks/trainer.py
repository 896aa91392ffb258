# SPDX-License-Identifier: Apache-2.0
"""Fine-tune by jft and by Hugging Face's Trainer, with equal settings.

Data and settings are the config's. Both start from the same weights, a new head
included, read the same tokens, and are scored by the same metric; they train in turn,
in this process, in float32 (on a GPU without TF32). Each draws the dropout from the
seed in its own way; what the config freezes or opens later has no gradient in Trainer
either, until it opens. ``--batches`` says what Trainer is fed: its ``own`` batches, in
an order of its own, padded to their longest text; ``grouped``, the same by its own
groups of length; or the ``same`` batches as jft. Seconds are from the loaded model and
its tokens to a trained model, compiling included, and with ``--evaluate`` an evaluation
after each epoch too.
"""

import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import activations, build, feed, judge, run_config, training
from experiments.benchmarks import torch_peer
from experiments.benchmarks.measure import Measured, Settings, mean_sd
from jft import evals, tasks, train
from jft.config import to_steps
from jft.tables import format_table
from jft.types import InputError

SAMPLING = {"own": "random", "grouped": "group_by_length", "same": "sequential"}
Run = dict[str, Any]  # what was run; score, seconds, steps


def measure(settings: Settings) -> Measured:
    """Run both in turn, for each config and seed."""
    if settings.evaluate and settings.batches == "same":
        raise InputError(
            '--evaluate needs batches that Trainer makes, but --batches is "same"; '
            'expected "own" or "grouped".'
        )
    configs = [
        (name, run_config.load(name, {**settings.overrides, "seed": seed}))
        for name in settings.configs
        for seed in settings.seeds
    ]
    for _, config in configs:
        torch_peer.check(config)
    runs: list[Run] = []
    for name, config in configs:
        job = build.make_job(config)
        which = {"config": run_config.short_name(name), "metric": config.evals.metric}
        for by, run in {"jft": run_jft, "Trainer": run_trainer}.items():
            one = {"by": by, "seed": config.seed}
            runs.append({**which, **one, **run(job, settings)})
            print(runs[-1], flush=True)
    return Measured(runs, describe(runs))


def run_jft(job: build.Job, settings: Settings) -> Run:
    """Fine-tune and score by jft."""
    table, place = job.tables[settings.split], jax.device_put
    with tempfile.TemporaryDirectory() as folder:
        before = time.perf_counter()
        stream = feed.Stream(job.loader, place)
        kept = activations.Activations(
            job,
            stream,
            place=place,
            folder=Path(folder),
            stop_requested=lambda: False,
        )
        evaluate = judge.Evaluator(job.config, job.model)
        after_epochs = train.evaluate_every(
            job.plan.eval_every,
            lambda moment: (
                evaluate(
                    moment.state.params, table, kept=kept.table(settings.split)
                ).scores
            ),
            record=lambda history, record: history.append(record),
        )
        result = train.fit(
            training.init_state(job),
            training.make_train_step(job, state_shardings=None),
            batches=stream,
            num_steps=job.plan.num_steps,
            open_groups_at=job.plan.open_groups_at,
            start_phase=kept.start_phase,
            hooks=[after_epochs] if settings.evaluate else [],
        )
        seconds = time.perf_counter() - before
        stream.close()
    return {
        "score": evaluate(result.state.params, table).scores[job.config.evals.metric],
        "seconds": seconds,
        "compile_seconds": sum(phase.compile_seconds for phase in result.phases),
        "steps": job.plan.num_steps,
    }


def run_trainer(job: build.Job, settings: Settings) -> Run:
    """Fine-tune and score by Trainer; what is not given here is its default."""
    import transformers

    config, same = job.config, settings.batches == "same"
    model = torch_peer.load(job)
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            max_steps=job.plan.num_steps,
            per_device_eval_batch_size=64,
            per_device_train_batch_size=1 if same else config.data.global_batch_size,
            learning_rate=config.optim.learning_rate,
            lr_scheduler_type=config.optim.schedule,
            warmup_steps=warmup_steps(job),
            weight_decay=config.optim.weight_decay,
            max_grad_norm=config.optim.clip_norm,
            seed=config.seed,
            train_sampling_strategy=SAMPLING[settings.batches],
            use_cpu=settings.device == "cpu",
            eval_strategy="epoch" if settings.evaluate else "no",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        table = job.tables[settings.split]
        rows = torch_peer.make_rows(job, settings.split)
        train_rows = make_batches(job) if same else torch_peer.make_rows(job, "train")
        before = time.perf_counter()
        trainer = transformers.Trainer(
            model=model,
            args=arguments,
            callbacks=[make_opener(job, model)],
            eval_dataset=rows if settings.evaluate else None,
            train_dataset=train_rows,
            data_collator=(lambda batches: batches[0]) if same else collator(job),
        )
        steps = trainer.train().global_step
        seconds = time.perf_counter() - before
        trainer.data_collator = collator(job)
        # else rows are predicted in the order of their lengths
        arguments.train_sampling_strategy = SAMPLING["own"]
        outputs = trainer.predict(rows).predictions
    evaluation = score(job, table, outputs)
    return {"score": evaluation, "seconds": seconds, "steps": steps}


def make_opener(job: build.Job, model: Any) -> Any:
    """What gives torch's parameters a gradient in the steps in which they move."""
    import transformers

    layers = torch_peer.moving(job, model)
    of_torch = torch_peer.freeze(model, layers)
    open_groups_at = job.plan.open_groups_at

    class Opener(transformers.TrainerCallback):  # type: ignore[misc]
        """Opens before a step; the optimizer was made when all were open."""

        def on_step_begin(
            self, args: Any, state: Any, control: Any, **kwargs: Any
        ) -> None:
            groups = open_groups_at(state.global_step, [])
            for name, layer in layers.items():
                of_torch[name].requires_grad = groups is None or layer in groups

    return Opener()


def warmup_steps(job: build.Job) -> int:
    """As many as jft takes."""
    return to_steps(
        job.config.optim.warmup,
        steps_per_epoch=job.loader.steps_per_epoch,
        examples_per_step=job.config.data.global_batch_size,
        num_steps=job.plan.num_steps,
    )


def make_batches(job: build.Job) -> list[dict[str, Any]]:
    """The batches that jft trains on, as tensors, in their order."""
    stream = job.loader.batches()
    batches = itertools.islice(stream, job.plan.num_steps)
    made = [torch_peer.make_batch(batch, job.config.data.task) for batch in batches]
    stream.close()
    return made


def collator(job: build.Job) -> Callable[[Sequence[Any]], dict[str, Any]]:
    """What pads rows; images are of one size."""
    return torch_peer.Collator(getattr(job.tables["train"], "padding", {}))


def score(job: build.Job, table: tasks.Table, outputs: Any) -> float:
    """Score torch's logits as jft's own are scored."""
    logits = np.stack(outputs, axis=-1) if isinstance(outputs, tuple) else outputs
    kept = job.task.predict(jnp.asarray(logits), {})
    rows = {name: np.asarray(x) for name, x in kept.items()}
    evaluated = evals.Evaluated(
        loss=float("nan"),
        rows={name: list(values) for name, values in rows.items()},
        index=np.arange(len(table)),
    )
    metric = job.config.evals.metric
    return tasks.score(job.task, evaluated, table, metric_names=[metric]).scores[metric]


def describe(runs: Sequence[Run]) -> str:
    """The table as text, a row a config."""
    rows = []
    for name in dict.fromkeys(run["config"] for run in runs):
        here = [run for run in runs if run["config"] == name]
        by = [[run for run in here if run["by"] == who] for who in ("jft", "Trainer")]
        points = [[100 * run["score"] for run in one] for one in by]
        seconds = [[run["seconds"] for run in one] for one in by]
        difference = f"{np.mean(points[0]) - np.mean(points[1]):+.2f}"
        ratio = f"{np.mean(seconds[0]) / np.mean(seconds[1]):.2f}"
        cells = [*map(mean_sd, points), difference, *map(mean_sd, seconds), ratio]
        rows.append([name, here[0]["metric"], *cells])
    headers = ["jft %", "Trainer %", "difference", "jft s", "Trainer s", "ratio"]
    return format_table(rows, ["config", "metric", *headers])
