# SPDX-License-Identifier: Apache-2.0
"""Classify by a logistic regression on the embeddings of a sentence encoder.

    python -m experiments.probe --config=configs/few_shot.py \
        --model=runs/few_shot/export

Fits scikit-learn's logistic regression on the labelled texts of the split train, as
the config draws them, and prints its accuracy on the others: the second half of SetFit
(``configs/few_shot.py``).
"""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np
from absl import flags

import jft
from experiments import dataset, feed, objective, run_config
from jft import data, evals, train
from jft.config import Config, load_config_file, new_flags, resolve, run_without_config
from jft.tables import format_table
from jft.tasks import sentence_similarity
from jft.types import ApplyFn, Batch, InputError, Params

FLAGS = new_flags()
MODEL = flags.DEFINE_string("model", None, "Folder or Hub id of an encoder.", FLAGS)
CONFIG = flags.DEFINE_string("config", None, "Config of the labelled texts.", FLAGS)
SEED = flags.DEFINE_integer(
    "split_seed", None, "Instead of the config's.", 0, None, FLAGS
)


def main() -> None:
    """Fit on the split train, score on the others."""
    if MODEL.value is None or CONFIG.value is None:
        raise InputError(
            "--model and --config are both needed: an encoder, and the labelled texts; "
            f"got --model={MODEL.value} and --config={CONFIG.value}."
        )
    config = labelled(resolve(load_config_file(CONFIG.value)[1]))
    train.keep_compiled()
    model = jft.load(MODEL.value, task="base")
    splits = dataset.load_examples(config)
    vectors = embed_all(config, model, splits)
    rows = [
        (
            name,
            len(split),
            evals.probe_accuracy(
                vectors["train"], splits["train"].targets, vectors[name], split.targets
            ),
        )
        for name, split in splits.items()
        if name != "train"
    ]
    print(format_table(rows, ("split", "examples", "accuracy")))


def labelled(config: Config) -> Config:
    """The same texts with their classes, not made into pairs."""
    seed = config.data.split_seed if SEED.value is None else SEED.value
    settings = dataclasses.replace(
        config.data, task="text_classification", task_options={}, split_seed=seed
    )
    return run_config.complete(
        dataclasses.replace(
            config,
            data=settings,
            train=dataclasses.replace(config.train, loss_options={}),
            evals=dataclasses.replace(config.evals, metrics=None, metric=None),
        )
    )


def embed_all(
    config: Config, model: jft.Pretrained, splits: Mapping[str, data.Examples]
) -> dict[str, np.ndarray]:
    """The embedding of every example of each split, ``[N, D]``."""
    step = train.make_eval_step(
        make_embed(model.apply_fn),
        objective.no_loss,
        predict=lambda outputs, batch: {"embedding": outputs},
    )
    vectors = {}
    for name, table in feed.make_tables(config.data, splits, model).items():
        batches = feed.make_eval_batches(config.data, table, model)
        evaluated = evals.evaluate(step, model.params, map(jax.device_put, batches))
        vectors[name] = np.stack(evaluated.rows["embedding"])
    return vectors


def make_embed(apply_fn: ApplyFn) -> ApplyFn:
    """The forward whose outputs are embeddings."""

    def embed(params: Params, batch: Batch, *, key: jax.Array | None) -> jax.Array:
        return sentence_similarity.embed(apply_fn, params, batch, key=key)

    return embed


if __name__ == "__main__":
    run_without_config(main, flag_values=FLAGS)
