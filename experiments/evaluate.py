# SPDX-License-Identifier: Apache-2.0
"""Score a run's best checkpoint, or an exported folder, on a split.

    python -m experiments.evaluate --workdir=runs/digits/20260101-120000
    python -m experiments.evaluate --model=…/export --config=configs/digits.py

A run brings its own data; a folder needs a config that says which.
"""

from absl import flags

from experiments import build, feed, judge, keep
from jft import processes, train
from jft.config import (
    define_process_flags,
    load_config_file,
    new_flags,
    resolve,
    run_without_config,
)
from jft.tables import format_table
from jft.types import InputError

FLAGS = new_flags()
keep.define_model_flags(FLAGS)
define_process_flags(FLAGS)
CONFIG = flags.DEFINE_string("config", None, "Config of the data, with --model.", FLAGS)
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
        config = build.complete(resolve(load_config_file(CONFIG.value)[1]))
    build.check_task(model, config.data)
    splits = processes.together(lambda: feed.load_examples(config))
    if SPLIT.value not in splits:
        raise InputError(
            f"--split is {SPLIT.value!r}; expected one of {sorted(splits)}."
        )
    examples = splits[SPLIT.value]
    build.check_classes(model, examples.class_names)
    table = processes.together(lambda: feed.make_table(config.data, examples, model))
    mesh = build.make_mesh(config)
    evaluate = judge.Evaluator(
        config, model, place=lambda batch: train.shard_batch(batch, mesh)
    )
    evaluation = evaluate(model.params, table)
    rows = [*evaluation.scores.items(), ("examples", evaluation.num_examples)]
    print(format_table(rows, (SPLIT.value, "value")))


if __name__ == "__main__":
    run_without_config(main, flag_values=FLAGS)
