# SPDX-License-Identifier: Apache-2.0
"""The rows of a run: where they are from, how they are divided, whether they fit."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jft import data, tasks
from jft.config import Config, DataConfig
from jft.tasks import Task, get_task, option_names
from jft.types import InputError

SPLITS = ("train", "validation", "test")
# the option that makes pairs of texts of one class, and of two, and what it reads
PAIRS = "pairs_per_example"
EVAL_PAIRS = 2  # of an example that is only evaluated: as good an estimate, sooner
LABELLED = (data.Column("text", "text"), data.Column("targets", "class"))


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


def load_sources(config: DataConfig) -> dict[str, data.Source]:
    """The splits before their rows are checked."""
    return data.load_splits(
        config.source,
        config.path,
        options=source_options(config),
        columns=columns_of(config),
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


def columns_of(config: DataConfig) -> dict[str, Any] | None:
    """Field -> column of all that the task needs; None where the names are the same."""
    if not config.columns:
        return None
    fields = columns_read(config)
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


def name_of(config: DataConfig) -> str:
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


def known_options(task: Task) -> set[str]:
    """The options that anything of a task has, `PAIRS` where it learns from pairs."""
    names = {column.name for column in task.columns}
    scored = task.target is not None and task.target.kind == "number"
    of_pairs = {PAIRS} if "text_pair" in names and scored else set()
    known = option_names(task.make_fields) | option_names(task.make_augment) | of_pairs
    return known - {"max_length"}


def check_options(config: DataConfig, *, section: str = "data") -> None:
    """Refuse options that nothing of the task has, and columns that it does not read.

    Args:
      config: the settings.
      section: where they are set.
    """
    tasks.check_options(
        config.task_options,
        known_options(get_task(config.task)),
        what=f"{section}.task_options",
        taker=f"the task {config.task!r}",
    )
    known = [column.name for column in columns_read(config)]
    if unknown := sorted(set(config.columns) - {*known, "id"}):
        raise InputError(
            f"{section}.columns names {unknown}, which the task {config.task!r} does "
            f"not read; expected some of {known}, or 'id'."
        )
