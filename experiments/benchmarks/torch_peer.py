# SPDX-License-Identifier: Apache-2.0
"""The same model, rows and batches in torch, for what is compared with it."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

import jft
from experiments import build, feed
from experiments.benchmarks import torch_steps
from jft import data, partition, paths
from jft.config import Config
from jft.params import adapters
from jft.types import Batch, InputError

Row = dict[str, Any]

INPUTS = ("input_ids", "attention_mask", "token_type_ids", "pixel_values")
# what the models of transformers call the targets of a task
TARGET_NAMES: Mapping[str, Callable[[np.ndarray], Row]] = {
    "text_classification": lambda targets: {"labels": targets},
    "token_classification": lambda targets: {"labels": targets},
    "image_classification": lambda targets: {"labels": targets},
    "masked_lm": lambda targets: {"labels": targets},
    "question_answering": lambda targets: {
        "start_positions": targets[0],
        "end_positions": targets[1],
    },
}


def check(config: Config) -> None:
    """Refuse a task whose targets torch's models would not understand."""
    if config.data.task not in TARGET_NAMES:
        raise InputError(
            f"the config is of the task {config.data.task!r}; this suite compares "
            f"{sorted(TARGET_NAMES)}."
        )
    if config.adapter.method is not None and config.optim.unfreeze.method != "none":
        raise InputError(
            f"adapter.method is {config.adapter.method!r} and optim.unfreeze.method "
            f"{config.optim.unfreeze.method!r}, but PEFT's adapters do not open layer "
            'by layer; set one of them to None or "none".'
        )


def load(job: build.Job) -> Any:
    """The model of transformers with the weights of the job, head included.

    An adapter is PEFT's, which reads what jft wrote.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_model(folder, job)
        return torch_steps.read_model(folder, head_of(job))


def write_model(folder: str, job: build.Job) -> None:
    """Put the model of a job where `torch_steps.read_model` reads it."""
    jft.save(folder, jft.fold(job.model))  # a new adapter changes nothing yet
    if job.model.adapter is not None:
        jft.save_adapter(f"{folder}/{torch_steps.ADAPTER}", job.model)


def head_of(job: build.Job) -> str:
    """The class of transformers that a job's model is."""
    return job.model.family.heads[job.model.task]


def moving(job: build.Job, model: Any) -> dict[str, int]:
    """Name of each torch parameter that the config lets move -> its layer.

    PEFT itself says what moves of a model with its adapter; all at once.
    """
    if job.model.adapter is not None:
        return {name: 0 for name, x in model.named_parameters() if x.requires_grad}
    labels = paths.flatten(job.labels)
    names = adapters.make_names(job.model.family, job.model.task, labels).tensors
    return {
        names[path]: job.model.layer_index(path)
        for path, label in labels.items()
        if partition.is_trainable(label)
    }


def freeze(model: Any, names: Mapping[str, int]) -> dict[str, Any]:
    """Let exactly these have a gradient; return all parameters by name."""
    of_torch = dict(model.named_parameters())
    for name, parameter in of_torch.items():
        parameter.requires_grad = name in names
    return of_torch


def make_rows(job: build.Job, split: str) -> list[Row]:
    """The rows of a split as a model of transformers takes them, in their order."""
    table, task = job.tables[split], job.config.data.task
    if job.task.reads == "image":
        rows = _rows_of_batches(
            feed.make_eval_batches(job.config.data, table, job.model)
        )
    else:
        rows = (table[i] for i in range(len(table)))
    return [_named(row, task) for row in rows]


def make_batch(batch: Batch, task: str) -> dict[str, Any]:
    """A batch of jft's loader as tensors."""
    import torch

    batch = data.unpack_batch(batch)
    targets = np.asarray(batch["targets"])
    if task == "question_answering":
        targets = targets.T
    named = _named({**batch, "targets": targets}, task)
    return {name: torch.from_numpy(as_torch_reads(x)) for name, x in named.items()}


def _rows_of_batches(batches: Iterable[Batch]) -> Iterator[Batch]:
    for batch in batches:
        for i in np.flatnonzero(np.asarray(batch["index"]) >= 0):
            yield {name: np.asarray(x)[i] for name, x in batch.items()}


def _named(row: Batch, task: str) -> Row:
    """The inputs, and the targets by the names that transformers has for them."""
    inputs = {name: np.asarray(row[name]) for name in INPUTS if name in row}
    if "pixel_values" in inputs:  # channels come last here and first there
        inputs["pixel_values"] = np.moveaxis(inputs["pixel_values"], -1, -3)
    return inputs | TARGET_NAMES[task](np.asarray(row["targets"]))


def as_torch_reads(x: np.ndarray) -> np.ndarray:
    """Integers as int64, all else as float32, writable."""
    kind = np.int64 if np.issubdtype(x.dtype, np.integer) else np.float32
    return np.array(x, kind)


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
            values = [np.asarray(row[name]) for row in rows]
            if values[0].ndim == 1:
                longest = max(map(len, values))
                fill = self._values.get(name, 0)
                values = [
                    np.pad(x, (0, longest - len(x)), constant_values=fill)
                    for x in values
                ]
            batch[name] = torch.from_numpy(as_torch_reads(np.stack(values)))
        return batch
