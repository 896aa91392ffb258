# SPDX-License-Identifier: Apache-2.0
"""A tag for every word of a text: names of people and places, parts of speech."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jft.data import Column, TaggingFields, make_tagging_fields, read_tags
from jft.evals import TAGGING_METRICS, Rows, entity_f1s, plot_class_f1s
from jft.tasks import classification
from jft.tasks.classification import examples_of
from jft.tasks.task import Table, Task
from jft.tasks.texts import tokenizer_of
from jft.types import Batch


def make_fields(model: Any, *, max_length: int) -> TaggingFields:
    """Pieces of words; the first of each word carries its tag."""
    return make_tagging_fields(tokenizer_of(model), max_length=max_length)


def predict(outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
    """Keep the likeliest tag of every piece, ``[B, L]``."""
    del batch
    return {"tags": jnp.argmax(outputs, axis=-1).astype(jnp.int32)}


def predictions(rows: Rows, table: Table) -> list[list[str]]:
    """A tag a word, by name; the tag of no entity for words that were cut off."""
    names = examples_of(table).class_names
    return [
        read_tags(tags, table[row]["word_tokens"], names)
        for row, tags in enumerate(rows["tags"])
    ]


def references(table: Table) -> list[list[str]]:
    """The tags of every word, by name."""
    examples = examples_of(table)
    names = np.array(examples.class_names, dtype=object)
    return [names[tags].tolist() for tags in examples.column("targets")]


def write_prediction(tags: Sequence[str], class_names: Sequence[str]) -> dict[str, Any]:
    """The tags, in the order of the words."""
    del class_names
    return {"tags": list(tags)}


def plot(
    references: Any, predictions: Any, class_names: Sequence[str], to: Path
) -> Path:
    """Draw how well each kind of entity is found."""
    del class_names
    return plot_class_f1s(entity_f1s(references, predictions), to)


TASK = Task(
    name="token_classification",
    inputs=(Column("words", "words"),),
    target=Column("targets", "tags"),
    head="token_classification",
    make_fields=make_fields,
    make_loss=classification.make_loss,
    train_metrics={"token_accuracy": classification.accuracy},
    predict=predict,
    predictions=predictions,
    references=references,
    metrics=TAGGING_METRICS,
    default_metrics=(
        "entity_f1",
        "entity_precision",
        "entity_recall",
        "token_accuracy",
    ),
    write_prediction=write_prediction,
    pipeline="token-classification",
    divergence="softmax",
    packs=True,
    plot=plot,
    plot_name="entities.png",
)
