# SPDX-License-Identifier: Apache-2.0
"""From examples to batches on the devices: fields, tables of tokens, loaders."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

import jft
from experiments.dataset import known_options
from jft import data
from jft.config import Config, DataConfig
from jft.tasks import Table, Task, call_with_options, get_task
from jft.types import Batch, InputError


# --- fields ---------------------------------------------------------------------------
def make_fields(config: DataConfig, model: jft.Pretrained) -> Any:
    """How an example becomes fields: as the model's processor does it."""
    task = get_task(config.task)
    most = model.family.max_positions(model.module.config)
    if task.reads == "text" and most is not None and config.max_length > most:
        raise InputError(
            f"data.max_length is {config.max_length} tokens; the model has positions "
            f"for at most {most}. Set it to {most} or less."
        )
    return call_with_options(
        task.make_fields,
        model,
        max_length=config.max_length,
        options=config.task_options,
        known=known_options(task),
        what="data.task_options",
    )


def check_augment(config: DataConfig, *, section: str = "data") -> None:
    """Refuse an augmentation that is not known, or not of what the task reads."""
    task = get_task(config.task)
    if config.augment is None:
        return
    if task.reads != "image":
        raise InputError(
            f"{section}.augment is {config.augment!r}, an augmentation of images, but "
            f"the task {task.name!r} reads {task.reads}s; set it to None."
        )
    data.get_augmentation(config.augment)


def make_augment(config: DataConfig, model: jft.Pretrained) -> Any | None:
    """The random change of every example that the task is about, if there is one."""
    task = get_task(config.task)
    if task.make_augment is None:
        return None
    return call_with_options(
        task.make_augment,
        model,
        options=config.task_options,
        known=known_options(task),
        what="data.task_options",
    )


def make_tables(
    config: DataConfig, splits: Mapping[str, data.Examples], model: jft.Pretrained
) -> dict[str, Table]:
    """The tokens of each split, made once and kept; of images the examples as they are.

    All splits share the fields function: a tokenizer takes long to copy and to digest.
    """
    if get_task(config.task).reads == "image":
        return dict(splits)
    fields_fn = make_fields(config, model)
    return {
        name: data.tokenize(examples, fields_fn, cache_dir=config.cache)
        for name, examples in splits.items()
    }


def make_table(
    config: DataConfig, examples: data.Examples, model: jft.Pretrained
) -> Table:
    """The same of one split."""
    return make_tables(config, {"": examples}, model)[""]


# --- batches --------------------------------------------------------------------------
def make_train_loader(
    config: Config, table: Table, model: jft.Pretrained
) -> data.TrainLoader:
    """The stream of training batches.

    Raises:
      InputError: if there is less than a batch.
    """
    settings = config.data
    if get_task(settings.task).reads == "image":
        loader = _make_image_loader(config, table, model)
    else:
        loader = _make_text_loader(config, table, model)
    if loader.steps_per_epoch < 1:
        raise InputError(
            f"the split 'train' has {len(table)} rows, which make "
            f"{loader.steps_per_epoch:.2f} batches of data.global_batch_size "
            f"{settings.global_batch_size}. Make the batch smaller."
        )
    return loader


def _make_image_loader(
    config: Config, table: Table, model: jft.Pretrained
) -> data.TrainLoader:
    name = config.data.augment
    options = _loader_options(config)
    if isinstance(table, data.TokenTable):  # activations of images
        return data.make_train_loader(table, **options)
    return data.make_train_loader(
        table,
        fields_fn=make_fields(config.data, model),
        augment=None if name is None else data.get_augmentation(name),
        **options,
    )


def _make_text_loader(
    config: Config, table: Table, model: jft.Pretrained
) -> data.TrainLoader:
    settings = config.data
    if settings.batching == "pack":
        check_packing(config, model)
    return data.make_token_loader(
        table,
        augment=make_augment(settings, model),
        batching=settings.batching,
        num_lengths=settings.num_lengths,
        max_lengths=max_lengths(settings, table),
        rows_multiple=jax.local_device_count(),
        **_loader_options(config),
    )


def _loader_options(config: Config) -> dict[str, Any]:
    return {
        "global_batch_size": config.data.global_batch_size,
        "seed": config.seed,
        "num_workers": config.data.num_workers,
    }


def max_lengths(config: DataConfig, table: data.TokenTable) -> dict[str, int]:
    """The most tokens of a row, by group of fields."""
    most = dict.fromkeys(table.lengths, config.max_length)
    if "target" in most:
        most["target"] = config.task_options.get("max_target_length", most["target"])
    return most


def make_eval_batches(
    config: DataConfig, table: Table, model: jft.Pretrained
) -> data.EvalBatches:
    """Every row of a split once."""
    size = config.global_batch_size
    if get_task(config.task).reads == "image":
        if isinstance(table, data.TokenTable):  # activations of images
            return data.make_eval_batches(table, global_batch_size=size)
        return data.make_eval_batches(
            table, global_batch_size=size, fields_fn=make_fields(config, model)
        )
    return data.make_eval_batches(
        table,
        global_batch_size=size,
        augment=make_augment(config, model),
        num_lengths=config.num_lengths,
        max_lengths=max_lengths(config, table),
        pack_length=config.max_length if shares_rows(config, model) else None,
        rows_multiple=jax.local_device_count(),
    )


def shares_rows(config: DataConfig, model: jft.Pretrained) -> bool:
    """Whether examples with one answer each share the rows of their batch."""
    task = get_task(config.task)
    return config.batching == "pack" and not task.packs and can_pack(task, model)


def can_pack(task: Task, model: jft.Pretrained) -> bool:
    """Whether the model keeps the examples of a row apart."""
    return task.head in model.family.packed_heads(model.module.config)


def check_packing(config: Config, model: jft.Pretrained) -> None:
    """Refuse to put several examples into a row where that is not exact."""
    task = get_task(config.data.task)
    if not task.packs and config.train.grad_accum_steps > 1:
        raise InputError(
            'data.batching is "pack" and train.grad_accum_steps '
            f"{config.train.grad_accum_steps}, but examples with one answer each share "
            'rows with others of their batch; set batching to "length", or '
            "grad_accum_steps to 1."
        )
    if model.adapter is not None and not model.adapter.packs:
        raise InputError(
            'data.batching is "pack", but a prompt (adapter.method) stands before the '
            'one text of a row; set batching to "length".'
        )
    if not can_pack(task, model):
        raise InputError(
            f'data.batching is "pack", but {model.family.model_type} models cannot '
            f"keep the examples of a row apart for the task {task.name!r}; set it to "
            '"length".'
        )


class Stream:
    """Placed batches from a step on, and the seconds that the run waited for them."""

    def __init__(
        self, loader: data.TrainLoader, place: Callable[[Batch], Batch]
    ) -> None:
        self._own = self._now = (loader, place)
        self._prefetch: data.Prefetch | None = None
        self._waited = 0.0  # before the last call

    def __call__(self, step: int) -> Iterator[Batch]:
        """The batch of every step from ``step`` on, in place of an earlier call's."""
        self.close()
        loader, place = self._now
        self._prefetch = data.prefetch_to_device(loader.batches(step), place)
        return self._prefetch

    def switch(self, loader: data.TrainLoader, place: Callable[[Batch], Batch]) -> None:
        """Read another loader from the next call on."""
        self._now = (loader, place)

    def switch_back(self) -> None:
        """Read its first loader again from the next call on."""
        self._now = self._own

    @property
    def wait_seconds(self) -> float:
        """Seconds waited so far."""
        here = self._prefetch.wait_seconds if self._prefetch else 0.0
        return self._waited + here

    def close(self) -> None:
        """Stop the threads or workers behind it."""
        if self._prefetch:
            self._waited = self.wait_seconds
            self._prefetch.close()
            self._prefetch = None
