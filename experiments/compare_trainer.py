# SPDX-License-Identifier: Apache-2.0
"""Fine-tune one checkpoint by jft and by Hugging Face's Trainer, with equal settings.

    pip install -e '.[bench]'
    python -m experiments.compare_trainer --model=minilm --epochs=1,3 --seeds=0,1,2

The data and settings are those of ``configs/sst2.py``; both train in turn, in this
process, in float32 (on a GPU without TF32). Each draws the new head, the order and the
dropout from the seed in its own way; Trainer pads a batch to its longest text, jft to
``data.max_length``. Seconds are from the files to a trained model: loading, tokenizing,
compiling, every step. Prints means ± standard deviations over the seeds, and the
difference in points of accuracy on the validation split; all runs go to a file.
"""

import os
import platform
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch needs some too

import jax
import numpy as np
from absl import flags

from experiments import build, judge
from jft import data, evals, train
from jft.config import (
    Config,
    apply_overrides,
    load_config_file,
    new_flags,
    resolve,
    run_without_config,
)
from jft.tables import format_table
from jft.types import InputError

FLAGS = new_flags()
MODEL = flags.DEFINE_string("model", None, "Folder of a checkpoint.", FLAGS)
DATA = flags.DEFINE_string("data", None, "Folder of the data; the config's.", FLAGS)
EPOCHS = flags.DEFINE_list("epochs", ["1", "3"], "Lengths of the runs.", FLAGS)
SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "A run of each for each.", FLAGS)
DEVICE = flags.DEFINE_enum("device", "cpu", ["cpu", "gpu"], "Where to run.", FLAGS)
OUTPUT = flags.DEFINE_string("output", "compare.json", "File to write.", FLAGS)

CONFIG = Path(__file__).parents[1] / "configs" / "sst2.py"
PACKAGES = ("jax", "flax", "optax", "torch", "transformers", "accelerate")
Run = dict[str, Any]  # what was run; accuracy, seconds, steps


def main() -> None:
    """Run both in turn, then print and write the table."""
    if MODEL.value is None:
        raise InputError("--model is missing; name the folder of a checkpoint.")
    jax.config.update("jax_platforms", {"cpu": "cpu", "gpu": "cuda"}[DEVICE.value])
    jax.config.update("jax_default_matmul_precision", "highest")
    runs: list[Run] = []
    for epochs in map(int, EPOCHS.value):
        for config in (load_config(epochs, int(seed)) for seed in SEEDS.value):
            for name, run in {"jft": run_jft, "Trainer": run_trainer}.items():
                which = {"by": name, "epochs": epochs, "seed": config.seed}
                runs.append(which | run(config))
                print(runs[-1], flush=True)
    print(describe(runs))
    machine = {
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    versions = {name: version(name) for name in PACKAGES}
    facts = {"runs": runs, "machine": machine, "versions": versions}
    evals.write_summary(OUTPUT.value, facts)


def load_config(epochs: int, seed: int) -> Config:
    """The config of a run."""
    _, config = load_config_file(f"{CONFIG}:pretrained={MODEL.value},epochs={epochs}")
    here = {} if DATA.value is None else {"data.path": DATA.value}
    return resolve(apply_overrides(config, {"seed": seed, **here}))


def run_jft(config: Config) -> Run:
    """Fine-tune and score by jft."""
    before = time.perf_counter()
    job = build.make_job(config)
    stream = build.Stream(job.loader, jax.device_put)
    result = train.fit(
        build.init_state(job),
        build.make_train_step(job, state_shardings=None),
        batches=stream,
        num_steps=job.plan.num_steps,
    )
    seconds = time.perf_counter() - before
    stream.close()
    evaluate = judge.Evaluator(config, job.model, place=jax.device_put)
    scores = evaluate(result.state.trainable, job.splits["validation"]).scores
    return {
        "accuracy": scores["accuracy"],
        "seconds": seconds,
        "compile_seconds": sum(phase.compile_seconds for phase in result.phases),
        "steps": job.plan.num_steps,
    }


def run_trainer(config: Config) -> Run:
    """Fine-tune and score by Trainer; what is not given here is its default."""
    import transformers

    before = time.perf_counter()
    splits = build.load_splits(config.data)
    transformers.set_seed(config.seed)  # of the new head
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        MODEL.value, num_labels=len(splits["train"].class_names)
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL.value)
    rows = {
        name: tokenize(tokenizer, source, config.data.max_length)
        for name, source in splits.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            num_train_epochs=config.train.num.amount,
            per_device_train_batch_size=config.data.global_batch_size,
            learning_rate=config.optim.learning_rate,
            lr_scheduler_type=config.optim.schedule,
            weight_decay=config.optim.weight_decay,
            max_grad_norm=config.optim.clip_norm,
            seed=config.seed,
            use_cpu=DEVICE.value == "cpu",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = transformers.Trainer(
            model=model,
            args=arguments,
            train_dataset=rows["train"],
            data_collator=transformers.DataCollatorWithPadding(tokenizer),
        )
        steps = trainer.train().global_step
        seconds = time.perf_counter() - before
        logits = trainer.predict(rows["validation"]).predictions
    right = np.argmax(logits, axis=-1) == splits["validation"].targets
    return {"accuracy": float(right.mean()), "seconds": seconds, "steps": steps}


def tokenize(tokenizer: Any, source: data.Source, max_length: int) -> list[Any]:
    """The rows that Trainer's collator pads."""
    texts = [source[i]["text"] for i in range(len(source))]
    columns = dict(tokenizer(texts, truncation=True, max_length=max_length))
    columns["labels"] = source.targets.tolist()
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def describe(runs: Sequence[Run]) -> str:
    """The table as text, a row a length."""
    rows = []
    for epochs in dict.fromkeys(run["epochs"] for run in runs):
        here = [run for run in runs if run["epochs"] == epochs]
        by = [[run for run in here if run["by"] == name] for name in ("jft", "Trainer")]
        points = [np.array([100 * run["accuracy"] for run in one]) for one in by]
        seconds = [np.array([run["seconds"] for run in one]) for one in by]
        difference = f"{points[0].mean() - points[1].mean():+.2f}"
        ratio = f"{seconds[0].mean() / seconds[1].mean():.2f}"
        cells = [*map(spread, points), difference, *map(spread, seconds), ratio]
        rows.append([epochs, *cells])
    headers = ["jft %", "Trainer %", "difference", "jft s", "Trainer s", "ratio"]
    return format_table(rows, ["epochs", *headers])


def spread(values: np.ndarray) -> str:
    """Mean ± sample standard deviation, where there are several values."""
    sd = f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else ""
    return f"{values.mean():.2f}{sd}"


if __name__ == "__main__":
    run_without_config(main, flag_values=FLAGS)
