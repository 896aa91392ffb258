# SPDX-License-Identifier: Apache-2.0
"""Scores of a tag a word, by entities: lists of tags against lists of tags.

They are seqeval's in its default mode, which are those of conlleval and of Hugging
Face's ``evaluate``: an entity counts where its type, first and last word are right; a
``I-`` tag that continues nothing begins an entity. Scores are over all entities of all
types together. Without any entity, true or predicted, they are 0.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from jft.evals.scoring import Metric, MetricFn
from jft.types import InputError

Tags: TypeAlias = Sequence[Sequence[str]]  # an example's tags, one a word


def entity_precision(references: Tags, predictions: Tags) -> float:
    """Share of the predicted entities that are right."""
    from seqeval.metrics import precision_score

    pairs = _as_lists(references, predictions)
    return float(precision_score(*pairs, average="micro", zero_division=0))


def entity_recall(references: Tags, predictions: Tags) -> float:
    """Share of the true entities that are found."""
    from seqeval.metrics import recall_score

    pairs = _as_lists(references, predictions)
    return float(recall_score(*pairs, average="micro", zero_division=0))


def entity_f1(references: Tags, predictions: Tags) -> float:
    """Harmonic mean of entity precision and recall."""
    from seqeval.metrics import f1_score

    pairs = _as_lists(references, predictions)
    return float(f1_score(*pairs, average="micro", zero_division=0))


def token_accuracy(references: Tags, predictions: Tags) -> float:
    """Share of the words whose tag is right; ``O`` makes it high."""
    from seqeval.metrics import accuracy_score

    return float(accuracy_score(*_as_lists(references, predictions)))


def entity_f1s(references: Tags, predictions: Tags) -> dict[str, tuple[float, int]]:
    """F1 of each type of entity and how many true ones there are, sorted by name."""
    from seqeval.metrics.sequence_labeling import (
        get_entities,
        precision_recall_fscore_support,
    )

    pairs = _as_lists(references, predictions)
    _, _, scores, counts = precision_recall_fscore_support(*pairs, zero_division=0)
    types = sorted({kind for tags in pairs for kind, _, _ in get_entities(tags)})
    return {
        kind: (float(score), int(count))
        for kind, score, count in zip(types, scores, counts, strict=True)
    }


TAGGING_METRICS: Mapping[str, MetricFn] = {
    "entity_f1": Metric(entity_f1, package="seqeval"),
    "entity_precision": Metric(entity_precision, package="seqeval"),
    "entity_recall": Metric(entity_recall, package="seqeval"),
    "token_accuracy": Metric(token_accuracy, package="seqeval"),
}


def _as_lists(
    references: Tags, predictions: Tags
) -> tuple[list[list[str]], list[list[str]]]:
    """What seqeval takes: lists, as long as each other."""
    for i, (reference, prediction) in enumerate(
        zip(references, predictions, strict=True)
    ):
        if len(reference) != len(prediction):
            raise InputError(
                f"example {i} has {len(reference)} words but {len(prediction)} "
                'predicted tags; expected one a word ("O" for words that were cut off).'
            )
    return [list(tags) for tags in references], [list(tags) for tags in predictions]
