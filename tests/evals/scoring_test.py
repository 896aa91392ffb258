# SPDX-License-Identifier: Apache-2.0
"""No rows and diverged models have no score; unknown metrics are named at once."""

import numpy as np
import pytest

from jft.evals import (
    ANSWER_METRICS,
    CLASSIFICATION_METRICS,
    EMBEDDING_METRICS,
    MULTILABEL_METRICS,
    REGRESSION_METRICS,
    TAGGING_METRICS,
    TEXT_METRICS,
    Metric,
    compute_scores,
)
from jft.evals.scoring import check_metric_names
from jft.types import InputError

NONE = np.zeros(0, np.float32)
EMPTY = {
    "answers": (ANSWER_METRICS, [], []),
    "classes": (CLASSIFICATION_METRICS, np.zeros(0, np.int32), np.zeros((0, 3))),
    "embeddings": (EMBEDDING_METRICS, NONE, NONE),
    "multi-label": (MULTILABEL_METRICS, np.zeros((0, 3)), np.zeros((0, 3))),
    "numbers": (REGRESSION_METRICS, NONE, NONE),
    "tags": (TAGGING_METRICS, [], []),
    "texts": (TEXT_METRICS, [], []),
}
TARGETS = np.array([0, 1, 1, 0], np.int32)
HOT = np.eye(2)[TARGETS]
ARRAYS = {
    "classes": (CLASSIFICATION_METRICS, TARGETS, HOT.astype(np.float32)),
    "embeddings": (EMBEDDING_METRICS, HOT[:, 0], HOT[:, 1]),
    "multi-label": (MULTILABEL_METRICS, HOT, HOT.astype(np.float32)),
    "numbers": (REGRESSION_METRICS, HOT[:, 0], HOT[:, 1]),
}


@pytest.mark.parametrize("kind", EMPTY)
def test_nothing_has_no_score(kind):
    metrics, references, predictions = EMPTY[kind]
    for name, metric in metrics.items():
        assert np.isnan(metric(references, predictions)), name


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ARRAYS)
def test_a_diverged_model_has_no_score(kind, value):
    metrics, references, predictions = ARRAYS[kind]
    diverged = predictions.copy()
    diverged.flat[1] = value
    for name, metric in metrics.items():
        assert np.isnan(metric(references, diverged)), name


def test_scores_come_in_the_order_asked_for_and_as_floats():
    metrics, references, predictions = ARRAYS["classes"]
    names = ["macro_f1", "accuracy"]
    scores = compute_scores(references, predictions, metrics=metrics, names=names)
    assert list(scores) == names
    assert all(type(score) is float for score in scores.values())
    assert scores["accuracy"] == 1.0


def test_unknown_names_are_listed_beside_the_known():
    with pytest.raises(InputError, match=r"\['acuracy', 'f2'\].*'mae', 'pearson'"):
        check_metric_names(["acuracy", "mae", "f2"], REGRESSION_METRICS)


def test_an_absent_package_is_named_before_anything_is_trained():
    metrics = {"a": Metric(max, package="no_such_package"), "b": Metric(max), "c": max}
    check_metric_names(["b", "c"], metrics)
    with pytest.raises(InputError, match=r"metrics \['a'\] need \['no_such_package'\]"):
        check_metric_names(["a", "b"], metrics)


def test_there_must_be_a_prediction_for_each_reference():
    with pytest.raises(InputError, match="2 references for 1 predictions"):
        REGRESSION_METRICS["mae"](np.zeros(2), np.zeros(1))
