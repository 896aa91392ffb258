# SPDX-License-Identifier: Apache-2.0
"""From a config to what goes in: splits, tokens, and the streams of batches."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

import jft
from jft import data, tasks
from jft.config import Config, DataConfig
from jft.tables import format_table
from jft.tasks import Task, call_with_options, get_task, option_names
from jft.types import Batch, InputError

SPLITS = ("train", "validation", "test")
# the option that makes pairs of texts of one class, and of two, and what it reads
PAIRS = "pairs_per_example"
EVAL_PAIRS = 2  # of an example that is only evaluated: as good an estimate, sooner
LABELLED = (data.Column("text", "text"), data.Column("targets", "class"))
Table = Any  # data.TokenTable, or data.Examples where there is nothing to tokenize


# --- examples -------------------------------------------------------------------------
def load_examples(config: Config) -> dict[str, data.Examples]:
    """Load the splits train, validation and test, every row checked.

    Raises:
      InputError: if a row is wrong, or the splits overlap or do not fit the task.
    """
    settings = config.data
    named = {*settings.split_sizes, *settings.split_paths}
    if named != set(SPLITS):
        raise InputError(
            f"data.split_sizes and data.split_paths name {sorted(named)}; expected "
            f"exactly {sorted(SPLITS)}."
        )
    sources = load_sources(settings)
    splits = {"train": read_examples(settings, sources["train"])}
    for name in SPLITS[1:]:
        splits[name] = read_examples(
            settings,
            sources[name],
            class_names=splits["train"].class_names,
            most_pairs=EVAL_PAIRS,
        )
    data.check_splits(splits, group=settings.split_group)
    return splits


def load_sources(
    config: DataConfig, *, section: str = "data"
) -> dict[str, data.Source]:
    """The splits before their rows are checked; ``section`` is where they are set."""
    return data.load_splits(
        config.source,
        config.path,
        options=source_options(config),
        columns=columns_of(config, section=section),
        split_option=part_option(config),
        split_paths=config.split_paths,
        sizes=config.split_sizes,
        seed=config.split_seed,
        per_class=config.split_per_class,
        stratify="targets" if config.split_stratify else None,
        group=config.split_group,
    )


def source_options(config: DataConfig) -> dict[str, Any]:
    """The options of the source, ``data.on_error`` among them where it reads rows."""
    takes_it = data.has_option(config.source, "on_error")
    shared = {"on_error": config.on_error} if takes_it else {}
    return {**shared, **config.source_options}


def part_option(config: DataConfig) -> str | None:
    """The option by which the source takes what ``data.split_paths`` names, if any."""
    return data.PART_OPTIONS.get(config.source) if config.split_paths else None


def columns_read(config: DataConfig) -> tuple[data.Column, ...]:
    """What is read of the rows of the source."""
    if PAIRS in config.task_options:
        return LABELLED
    return get_task(config.task).columns


def columns_of(config: DataConfig, *, section: str = "data") -> dict[str, Any] | None:
    """Field -> column of all that the task needs; None where the names are the same."""
    fields = columns_read(config)
    known = [column.name for column in fields]
    if unknown := sorted(set(config.columns) - {*known, "id"}):
        raise InputError(
            f"{section}.columns names {unknown}, which the task {config.task!r} does "
            f"not read; expected some of {known}, or 'id'."
        )
    if not config.columns:
        return None
    needed = {column.name: column.name for column in fields if not column.optional}
    return needed | dict(config.columns)


def read_examples(
    config: DataConfig,
    source: data.Source,
    *,
    class_names: tuple[str, ...] | None = None,
    most_pairs: int | None = None,
) -> data.Examples:
    """Check a source's rows as the task reads them.

    Where pairs are made of them, ``most_pairs`` limits how many an example is in.
    """
    examples = data.make_examples(
        source,
        columns_read(config),
        class_names=class_names or config.class_names or None,
        on_error=config.on_error,
    )
    if PAIRS not in config.task_options:
        return examples
    wanted = config.task_options[PAIRS]
    pairs = data.few_shot_pairs(
        examples,
        pairs_per_example=wanted if most_pairs is None else min(wanted, most_pairs),
        seed=config.split_seed,
    )
    return data.make_examples(pairs, get_task(config.task).columns)


def dataset_name(config: DataConfig) -> str:
    """What the data is called: its file or folder, or the source that needs none."""
    return config.source if config.path is None else Path(config.path).resolve().stem


def all_texts(task: Task, examples: data.Examples) -> Iterator[str]:
    """Every text of the examples, read or written, to learn a tokenizer from."""
    names = [column.name for column in task.columns if column.kind == "text"]
    for name in names:
        if name in examples.columns:
            yield from examples.column(name)
    if any(column.kind == "messages" for column in task.columns):
        for messages in examples.column("messages"):
            yield from (message["content"] for message in messages)


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


def known_options(task: Task) -> set[str]:
    """The options that anything of a task has, `PAIRS` where it learns from pairs."""
    names = {column.name for column in task.columns}
    scored = task.target is not None and task.target.kind == "number"
    of_pairs = {PAIRS} if "text_pair" in names and scored else set()
    known = option_names(task.make_fields) | option_names(task.make_augment) | of_pairs
    return known - {"max_length"}


def check_options(config: DataConfig, *, section: str = "data") -> None:
    """Refuse options that nothing of the task has."""
    known = known_options(get_task(config.task))
    tasks.check_options(
        config.task_options,
        known,
        what=f"{section}.task_options",
        taker=f"the task {config.task!r}",
    )
    columns_of(config, section=section)


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
    settings, task = config.data, get_task(config.data.task)
    common = {
        "global_batch_size": settings.global_batch_size,
        "seed": config.seed,
        "num_workers": settings.num_workers,
    }
    if task.reads == "image":
        name = settings.augment
        loader = data.make_train_loader(
            table,
            fields_fn=make_fields(settings, model),
            augment=None if name is None else data.get_augmentation(name),
            **common,
        )
    else:
        if settings.batching == "pack":
            check_packing(config, model)
        loader = data.make_token_loader(
            table,
            augment=make_augment(settings, model),
            batching=settings.batching,
            num_lengths=settings.num_lengths,
            max_lengths=max_lengths(settings, table),
            rows_multiple=jax.local_device_count(),
            **common,
        )
    if loader.steps_per_epoch < 1:
        raise InputError(
            f"the split 'train' has {len(table)} rows, which make "
            f"{loader.steps_per_epoch:.2f} batches of data.global_batch_size "
            f"{settings.global_batch_size}. Make the batch smaller."
        )
    return loader


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


# --- report ---------------------------------------------------------------------------
def report(
    config: DataConfig, splits: Mapping[str, data.Examples], tables: Mapping[str, Table]
) -> dict[str, Any]:
    """What a run should know of its data, for the summary."""
    seen = [c.name for c in get_task(config.task).inputs if c.kind != "image"]
    texts = [name for name in seen if name in splits["train"].columns]
    shared = data.count_shared(splits, texts) if texts else {}
    skipped = find_skipped(splits)
    return {
        "examples": {name: len(split) for name, split in splits.items()},
        "rows": {name: len(table) for name, table in tables.items()},
        "skipped": {name: count for name, (count, _) in skipped.items()},
        "skipped_first": {name: list(why[:10]) for name, (_, why) in skipped.items()},
        "also_in_train": {
            other: count for (one, other), count in shared.items() if one == "train"
        },
        "truncated": {name: count_truncated(table) for name, table in tables.items()},
    }


def find_skipped(
    splits: Mapping[str, data.Examples],
) -> dict[str, tuple[int, tuple[str, ...]]]:
    """How many rows each split left out, and why.

    Those that the task cannot use, and those that the source cannot read, which belong
    to no split: they count for the first one that is drawn from their file.
    """
    found, seen = {}, []
    for name, examples in splits.items():
        source: Any = examples.source
        while isinstance(source, data.Subset):
            source = source.source
        count, why = len(examples.skipped), tuple(examples.skipped)
        if not any(source is other for other in seen):
            seen.append(source)
            count += getattr(source, "num_skipped", 0)
            why = (*getattr(source, "skipped", ()), *why)
        found[name] = (count, why)
    return found


def count_truncated(table: Table) -> int:
    """Rows of a table that are not the whole of what they were made of."""
    if "truncated" not in getattr(table, "host_fields", ()):
        return 0
    return int(table.column("truncated").sum())


def describe(report: Mapping[str, Any]) -> str:
    """The same as a table for people."""
    counted = [name for name in report if name != "skipped_first"]
    names = [name for name in counted if any(report[name].values())]
    rows = [
        [split, *(report[name].get(split, "") for name in names)] for split in SPLITS
    ]
    return format_table(rows, ["split", *(name.replace("_", " ") for name in names)])
