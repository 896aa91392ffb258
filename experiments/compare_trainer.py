# SPDX-License-Identifier: Apache-2.0
"""Fine-tune one checkpoint by jft and by Hugging Face's Trainer, with equal settings.

    pip install -e '.[bench]'
    python -m experiments.compare_trainer --config=configs/sst2.py --model=minilm \
        --config=configs/wikiann_ner.py --config=configs/xquad_qa.py --seeds=0,1,2

Data and settings are the config's. Both start from the same weights, a new head
included, read the same tokens, and are scored by the same metric; they train in turn,
in this process, in float32 (on a GPU without TF32). Each draws the dropout from the
seed in its own way; what the config freezes or opens later has no gradient in Trainer
either, until it opens. ``--batches`` says what Trainer is fed: its ``own`` batches, in
an order of its own, padded to their longest text; ``grouped``, the same by its own
groups of length; or the ``same`` batches as jft. Seconds are from the loaded model and
its tokens to a trained model, compiling included, and with ``--evaluate`` an evaluation
after each epoch too. Prints means ± standard deviations over
the seeds, and the difference in points; all runs go to a file.
"""

import itertools
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch needs some too

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import jft
from experiments import activations, build, feed, judge, outputs
from jft import data, evals, params, paths, tasks, train
from jft.config import (
    Config,
    apply_overrides,
    load_config_file,
    new_flags,
    resolve,
    run_without_config,
    to_steps,
)
from jft.tables import format_table
from jft.types import FROZEN, InputError

FLAGS = new_flags()
CONFIGS = flags.DEFINE_multi_string("config", [], "A config; repeat it.", FLAGS)
MODEL = flags.DEFINE_string("model", None, "Folder of a checkpoint.", FLAGS)
DATA = flags.DEFINE_string("data", None, "Path of the data; the config's.", FLAGS)
EPOCHS = flags.DEFINE_integer(
    "epochs", None, "Instead of the config's.", 1, None, FLAGS
)
SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "A run of each for each.", FLAGS)
SPLIT = flags.DEFINE_enum(
    "split", "validation", ["validation", "test"], "What is scored.", FLAGS
)
BATCHES = flags.DEFINE_enum(
    "batches", "own", ["own", "grouped", "same"], "What Trainer is fed.", FLAGS
)
EVALUATE = flags.DEFINE_bool("evaluate", False, "After each epoch.", FLAGS)
DEVICE = flags.DEFINE_enum("device", "cpu", ["cpu", "gpu"], "Where to run.", FLAGS)
OUTPUT = flags.DEFINE_string("output", "compare.json", "File to write.", FLAGS)

PACKAGES = ("jax", "flax", "optax", "torch", "transformers", "accelerate")
# what Trainer's models call the targets of a row
TARGET_NAMES: Mapping[str, Callable[[np.ndarray], dict[str, Any]]] = {
    "text_classification": lambda targets: {"labels": targets},
    "token_classification": lambda targets: {"labels": targets},
    "question_answering": lambda targets: {
        "start_positions": targets[0],
        "end_positions": targets[1],
    },
}
SAMPLING = {"own": "random", "grouped": "group_by_length", "same": "sequential"}
Run = dict[str, Any]  # what was run; score, seconds, steps


def main() -> None:
    """Run both in turn, then print and write the table."""
    if MODEL.value is None or not CONFIGS.value:
        raise InputError(
            "--model and --config are both needed: the folder of a checkpoint, and "
            f"what to fine-tune it on; got --model={MODEL.value} and "
            f"--config={CONFIGS.value}."
        )
    if EVALUATE.value and BATCHES.value == "same":
        raise InputError(
            '--evaluate needs batches that Trainer makes, but --batches is "same"; '
            'expected "own" or "grouped".'
        )
    jax.config.update("jax_platforms", {"cpu": "cpu", "gpu": "cuda"}[DEVICE.value])
    jax.config.update("jax_default_matmul_precision", "highest")
    runs: list[Run] = []
    for name in CONFIGS.value:
        for seed in map(int, SEEDS.value):
            config = load_config(name, seed)
            job = build.make_job(config)
            which = {"config": called(name), "metric": config.evals.metric}
            for by, run in {"jft": run_jft, "Trainer": run_trainer}.items():
                runs.append({**which, "by": by, "seed": seed} | run(job))
                print(runs[-1], flush=True)
    print(describe(runs))
    facts = {
        "runs": runs,
        "machine": outputs.machine(),
        "versions": outputs.versions(PACKAGES),
    }
    evals.write_summary(OUTPUT.value, facts)


def load_config(name: str, seed: int) -> Config:
    """The config of a run."""
    separator = "," if ":" in name else ":"
    _, config = load_config_file(f"{name}{separator}pretrained={MODEL.value}")
    here: dict[str, Any] = {"seed": seed}
    if DATA.value is not None:
        here["data.path"] = DATA.value
    if EPOCHS.value is not None:
        here["train.num_epochs"] = EPOCHS.value
    config = build.complete(resolve(apply_overrides(config, here)))
    if config.data.task not in TARGET_NAMES:
        raise InputError(
            f"{name} is of the task {config.data.task!r}; this script compares "
            f"{sorted(TARGET_NAMES)}."
        )
    return config


def called(name: str) -> str:
    """What a config is called in the table: its file, and its arguments."""
    file, _, arguments = name.partition(":")
    return f"{Path(file).stem} {arguments}".strip()


def run_jft(job: build.Job) -> Run:
    """Fine-tune and score by jft."""
    table, place = job.tables[SPLIT.value], jax.device_put
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
        evaluate = judge.Evaluator(job.config, job.model, place=place)
        after_epochs = train.evaluate_every(
            job.plan.eval_every,
            lambda moment: (
                evaluate(
                    moment.state.params, table, kept=kept.table(SPLIT.value)
                ).scores
            ),
            record=lambda history, record: history.append(record),
        )
        result = train.fit(
            build.init_state(job),
            build.make_train_step(job, state_shardings=None),
            batches=stream,
            num_steps=job.plan.num_steps,
            open_groups_at=build.open_groups_at(job),
            start_phase=kept.start_phase,
            hooks=[after_epochs] if EVALUATE.value else [],
        )
        seconds = time.perf_counter() - before
        stream.close()
    return {
        "score": evaluate(result.state.params, table).scores[job.config.evals.metric],
        "seconds": seconds,
        "compile_seconds": sum(phase.compile_seconds for phase in result.phases),
        "steps": job.plan.num_steps,
    }


def run_trainer(job: build.Job) -> Run:
    """Fine-tune and score by Trainer; what is not given here is its default."""
    import transformers

    config, head = job.config, job.model.family.heads[job.model.task]
    same, train_table = BATCHES.value == "same", job.tables["train"]
    with tempfile.TemporaryDirectory() as folder:
        jft.save(folder, job.model)
        model = getattr(transformers, head).from_pretrained(folder)
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
            train_sampling_strategy=SAMPLING[BATCHES.value],
            use_cpu=DEVICE.value == "cpu",
            eval_strategy="epoch" if EVALUATE.value else "no",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        table = job.tables[SPLIT.value]
        rows = make_rows(table, config.data.task)
        before = time.perf_counter()
        trainer = transformers.Trainer(
            model=model,
            args=arguments,
            callbacks=[make_opener(job, model)],
            eval_dataset=rows if EVALUATE.value else None,
            train_dataset=make_batches(job)
            if same
            else make_rows(train_table, config.data.task),
            data_collator=(lambda batches: batches[0])
            if same
            else Collator(train_table.padding),
        )
        steps = trainer.train().global_step
        seconds = time.perf_counter() - before
        trainer.data_collator = Collator(table.padding)
        outputs = trainer.predict(rows).predictions
    evaluation = score(job, table, outputs)
    return {"score": evaluation, "seconds": seconds, "steps": steps}


def make_opener(job: build.Job, model: Any) -> Any:
    """What gives torch's parameters a gradient in the steps in which they move."""
    import transformers

    labels = paths.flatten(job.labels)
    keys = params.checkpoint_keys(job.model.family, job.model.task, labels)
    of_torch = dict(model.named_parameters())
    layers = {
        keys[path]: job.model.layer_index(path)
        for path, label in labels.items()
        if label != FROZEN
    }
    for name, parameter in of_torch.items():
        parameter.requires_grad = name in layers
    open_groups_at = build.open_groups_at(job)

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


def make_rows(table: feed.Table, task: str) -> list[dict[str, Any]]:
    """The rows of a table as Trainer takes them."""
    rows = []
    for i in range(len(table)):
        row = table[i]
        inputs = {name: row[name] for name in table.padding if name != "targets"}
        rows.append(inputs | TARGET_NAMES[task](row["targets"]))
    return rows


def make_batches(job: build.Job) -> list[dict[str, Any]]:
    """The batches that jft trains on, as tensors, in their order."""
    import torch

    batches = []
    stream = job.loader.batches()
    for batch in itertools.islice(stream, job.plan.num_steps):
        inputs = {name: batch[name] for name in job.tables["train"].padding}
        inputs.pop("targets", None)
        targets = batch["targets"]
        named = targets.T if job.task.name == "question_answering" else targets
        inputs |= TARGET_NAMES[job.task.name](named)
        batches.append(
            {k: torch.from_numpy(np.array(x, np.int64)) for k, x in inputs.items()}
        )
    stream.close()
    return batches


class Collator:
    """Pads the rows of a batch to the longest of them."""

    def __init__(self, padding: Mapping[str, data.Pad]) -> None:
        self._values = {name: pad.value for name, pad in padding.items()}
        self._values["labels"] = data.IGNORED

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Make a batch of tensors."""
        import torch

        batch = {}
        for name in rows[0]:
            values = [np.atleast_1d(np.asarray(row[name])) for row in rows]
            longest = max(map(len, values))
            fill = self._values.get(name, 0)
            padded = [
                np.pad(x, (0, longest - len(x)), constant_values=fill) for x in values
            ]
            stacked = torch.from_numpy(np.stack(padded).astype(np.int64))
            batch[name] = stacked if np.ndim(rows[0][name]) else stacked[:, 0]
        return batch


def score(job: build.Job, table: feed.Table, outputs: Any) -> float:
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
        points = [np.array([100 * run["score"] for run in one]) for one in by]
        seconds = [np.array([run["seconds"] for run in one]) for one in by]
        difference = f"{points[0].mean() - points[1].mean():+.2f}"
        ratio = f"{seconds[0].mean() / seconds[1].mean():.2f}"
        cells = [*map(spread, points), difference, *map(spread, seconds), ratio]
        rows.append([name, here[0]["metric"], *cells])
    headers = ["jft %", "Trainer %", "difference", "jft s", "Trainer s", "ratio"]
    return format_table(rows, ["config", "metric", *headers])


def spread(values: np.ndarray) -> str:
    """Mean ± sample standard deviation, where there are several values."""
    sd = f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else ""
    return f"{values.mean():.2f}{sd}"


if __name__ == "__main__":
    run_without_config(main, flag_values=FLAGS)
