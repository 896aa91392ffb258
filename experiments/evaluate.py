# SPDX-License-Identifier: Apache-2.0
"""Score a run's best checkpoint, or an exported folder, on a split.

    python -m experiments.evaluate --workdir=runs/digits/20260101-120000
    python -m experiments.evaluate --model=…/export --config=configs/digits.py

A run brings its own data; a folder needs a config that says which. Scores are of the
examples, not of how they are batched: ``--set=data.global_batch_size=8`` changes none.
"""

from absl import flags

import jft
from experiments import dataset, feed, judge, keep, run_config
from jft import processes, train
from jft.config import (
    DataConfig,
    define_process_flags,
    new_flags,
    read_overrides,
    run_without_config,
)
from jft.tables import format_table
from jft.tasks import get_task
from jft.types import InputError

FLAGS = new_flags()
keep.define_model_flags(FLAGS)
define_process_flags(FLAGS)
CONFIG = flags.DEFINE_string("config", None, "Config of the data, with --model.", FLAGS)
SET = flags.DEFINE_multi_string(
    "set", [], "Override of the config, such as data.global_batch_size=8.", FLAGS
)
SPLIT = flags.DEFINE_string("split", "test", "train, validation or test.", FLAGS)


def main() -> None:
    """Print the scores as a table."""
    train.keep_compiled()
    model, config = keep.load_trained(FLAGS)
    if config is None:
        if CONFIG.value is None:
            raise InputError(
                "--model needs --config=file.py, which says what data to score it on."
            )
        config = run_config.load(CONFIG.value)
    config = run_config.override(config, read_overrides(SET.value))
    check_task(model, config.data)
    splits = processes.together(lambda: dataset.load_examples(config))
    if SPLIT.value not in splits:
        raise InputError(
            f"--split is {SPLIT.value!r}; expected one of {sorted(splits)}."
        )
    examples = splits[SPLIT.value]
    check_classes(model, examples.class_names)
    table = processes.together(lambda: feed.make_table(config.data, examples, model))
    evaluation = judge.Evaluator(config, model)(model.params, table)
    rows = [*evaluation.scores.items(), ("examples", evaluation.num_examples)]
    print(format_table(rows, (SPLIT.value, "value")))


def check_task(model: jft.Pretrained, config: DataConfig) -> None:
    """Refuse a model whose head answers another task."""
    needed = get_task(config.task).head
    if model.task != needed:
        raise InputError(
            f"the model has the head {model.task!r}, but data.task {config.task!r} "
            f"needs {needed!r}; use a config of its own task."
        )


def check_classes(model: jft.Pretrained, class_names: tuple[str, ...]) -> None:
    """Refuse data whose classes are not the model's."""
    known = model.class_names
    if class_names and known != class_names:
        raise InputError(
            f"the data has the classes {list(class_names)}, but the model was trained "
            f"on {list(known)}; use the data of its own task."
        )


if __name__ == "__main__":
    run_without_config(main, flag_values=FLAGS)
