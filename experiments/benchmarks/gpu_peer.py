# SPDX-License-Identifier: Apache-2.0
"""The same steps by Hugging Face's Trainer, in bfloat16 and compiled."""

import tempfile
import time
from typing import Any

import torch
import transformers

from experiments.benchmarks import gpu_cases
from experiments.benchmarks.gpu_cases import Case
from experiments.benchmarks.measure import Settings
from jft.models import family_of
from jft.tasks import get_task

SETTLE = 5  # steps before the first that is timed: torch compiles in them


def time_steps(case: Case, settings: Settings) -> list[float]:
    """Seconds of a step, a figure a round; everything moves."""
    model = make_model(case)
    total = SETTLE + settings.rounds * settings.steps
    clock = Clock(settings.steps, on_gpu=settings.device == "gpu")
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            max_steps=total,
            per_device_train_batch_size=1,  # each a batch already
            learning_rate=5e-5,
            bf16=True,
            torch_compile=settings.device == "gpu",
            use_cpu=settings.device == "cpu",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        transformers.Trainer(
            model=model,
            args=arguments,
            callbacks=[clock],
            train_dataset=[make_batch(case)] * total,
            data_collator=lambda batches: batches[0],
        ).train()
    del model
    torch.cuda.empty_cache()
    return clock.seconds


class Clock(transformers.TrainerCallback):  # type: ignore[misc]
    """Takes the time of so many steps, again and again."""

    def __init__(self, steps: int, *, on_gpu: bool) -> None:
        self.seconds: list[float] = []
        self._steps = steps
        self._on_gpu = on_gpu
        self._began = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at the clock between two rounds."""
        done = state.global_step - SETTLE
        if done < 0 or done % self._steps:
            return
        if self._on_gpu:
            torch.cuda.synchronize()
        if done:
            now = time.perf_counter()
            self.seconds.append((now - self._began) / self._steps)
        self._began = time.perf_counter()


def make_model(case: Case) -> Any:
    """The model of transformers, with weights of its own drawing."""
    fields = dict(case.model)
    config = transformers.AutoConfig.for_model(fields.pop("model_type"), **fields)
    head = family_of(case.model).heads[get_task(case.task).head]
    return getattr(transformers, head)(config)


def make_batch(case: Case) -> dict[str, Any]:
    """The batch of jft, as torch names it."""
    batch = gpu_cases.make_batch(case, case.rows)
    targets, _ = batch.pop("targets"), batch.pop("loss_mask")
    if case.task == "causal_lm":
        targets = batch["input_ids"]  # which the model itself compares one later
    if "pixel_values" in batch:  # channels come first
        batch["pixel_values"] = batch["pixel_values"].transpose(0, 3, 1, 2).copy()
    named = {**batch, "labels": targets}
    return {
        name: torch.from_numpy(x.astype("int64") if x.dtype.kind == "i" else x)
        for name, x in named.items()
    }
