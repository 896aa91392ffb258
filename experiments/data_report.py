# SPDX-License-Identifier: Apache-2.0
"""What a run should know of its data: how much there is, left out and cut off."""

from collections.abc import Mapping
from typing import Any

from experiments.dataset import SPLITS
from jft import data, tasks
from jft.config import DataConfig
from jft.tables import format_table
from jft.tasks import get_task


def make_report(
    config: DataConfig,
    splits: Mapping[str, data.Examples],
    tables: Mapping[str, tasks.Table],
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


def count_truncated(table: tasks.Table) -> int:
    """Rows of a table that are not the whole of what they were made of."""
    if "truncated" not in getattr(table, "host_fields", ()):
        return 0
    return int(table.column("truncated").sum())


def describe(report: Mapping[str, Any]) -> str:
    """The report as a table for people."""
    counted = [name for name in report if name != "skipped_first"]
    names = [name for name in counted if any(report[name].values())]
    rows = [
        [split, *(report[name].get(split, "") for name in names)] for split in SPLITS
    ]
    return format_table(rows, ["split", *(name.replace("_", " ") for name in names)])
