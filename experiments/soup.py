# SPDX-License-Identifier: Apache-2.0
"""Average the weights of several finished runs on one base: a model soup.

    python -m experiments.soup --runs=runs/sweep/a/seed0 --runs=runs/sweep/b/seed0 \
        --method=greedy --to=soup

The runs may differ in seed, recipe and length, not in data: with another
``data.split_seed`` some would have trained on what others are validated on (in a sweep
say ``--set=data.split_seed=0``). Greedy adds the runs from the best on where the
validation metric gets no worse, uniform takes them all. Writes the model and what it is
made of (``soup.json``) into ``--to``.
"""

import functools
from pathlib import Path
from typing import Any

from absl import flags

import jft
from experiments import judge, keep
from jft import evals, params, train
from jft.config import (
    Config,
    differences,
    new_flags,
    read_config,
    run_without_config,
)
from jft.tables import format_table
from jft.types import InputError, Params

FLAGS = new_flags()
RUNS = flags.DEFINE_multi_string("runs", [], "Workdir of a run; repeat it.", FLAGS)
METHOD = flags.DEFINE_enum(
    "method", "greedy", ["greedy", "uniform"], "Which runs to take.", FLAGS
)
TO = flags.DEFINE_string("to", None, "Folder to write.", FLAGS)
# of the data, what changes no example
HARMLESS = ("data.cache", "data.num_workers", "data.augment", "data.global_batch_size")


def main() -> None:
    """Score every run, mix them, score the soup, and write it."""
    if TO.value is None or len(RUNS.value) < 2:
        raise InputError(
            "--to=folder and two or more --runs are needed; got "
            f"--to={TO.value} and --runs={RUNS.value}."
        )
    workdirs = [Path(run) for run in RUNS.value]
    check_same_data([read_config(workdir) for workdir in workdirs])
    train.keep_compiled()
    job, _ = keep.load_run(workdirs[0])
    model = jft.fold(job.model)
    evaluate = judge.Evaluator(job.config, model)

    def score(weights: Params, split: str) -> dict[str, float]:
        return dict(evaluate(weights, job.tables[split]).scores)

    metric, mode = job.config.evals.metric, job.config.evals.mode
    load = functools.partial(load_weights, workdirs, class_names=model.class_names)
    alone = [score(load(i), "validation") for i in range(len(workdirs))]
    if METHOD.value == "uniform":
        chosen = tuple(range(len(workdirs)))
        mixed = params.uniform_soup(map(load, chosen))
    else:
        mixed, chosen, _ = params.greedy_soup(
            [scores[metric] for scores in alone],
            load,
            lambda weights: score(weights, "validation")[metric],
            mode=mode,
        )
    runs = [
        {"workdir": run, "chosen": i in chosen, "validation": alone[i]}
        for i, run in enumerate(RUNS.value)
    ]
    soup = {split: score(mixed, split) for split in ("validation", "test")}
    report = {"method": METHOD.value, "metric": metric, "soup": soup, "runs": runs}
    jft.save(TO.value, model, params=mixed)
    evals.write_summary(Path(TO.value) / "soup.json", report)
    print(describe(report), f"\nwritten: {TO.value}", sep="\n")


def check_same_data(configs: list[Config]) -> None:
    """Refuse runs whose validation examples others may have trained on."""
    first, *others = configs
    for index, other in enumerate(others, start=1):
        changed = differences(first, other)
        known = ("data.", "model.pretrained", "model.revision")
        unlike = [k for k in changed if k.startswith(known) and k not in HARMLESS]
        if unlike:
            raise InputError(
                f"{RUNS.value[index]} differs from {RUNS.value[0]} in {unlike}; a soup "
                "is of runs on one base and one division of the data."
            )


def load_weights(
    workdirs: list[Path], index: int, *, class_names: tuple[str, ...]
) -> Params:
    """The parameters of a run's best step, an adapter folded."""
    job, trained = keep.load_run(workdirs[index])
    if job.model.class_names != class_names:
        raise InputError(
            f"{workdirs[index]} knows the classes {list(job.model.class_names)}, but "
            f"{workdirs[0]} {list(class_names)}; a soup is of models of one task."
        )
    return jft.fold(job.model, params=trained).params


def describe(report: dict[str, Any]) -> str:
    """The table as text."""
    metric = report["metric"]
    rows = [
        [run["workdir"], "yes" if run["chosen"] else "", run["validation"][metric]]
        for run in report["runs"]
    ]
    soup = report["soup"]
    rows.append(["soup", "", soup["validation"][metric]])
    table = format_table(rows, ["run", "taken", f"validation {metric}"])
    return f"{table}\n\nsoup, test {metric}: {soup['test'][metric]:.4f}"


if __name__ == "__main__":
    run_without_config(main, flag_values=FLAGS)
