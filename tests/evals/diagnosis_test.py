# SPDX-License-Identifier: Apache-2.0
"""Each kind of trouble is named with its figures, and a sound run is left in peace."""

import math

import numpy as np
import pytest

from jft.evals import diagnose, weight_drift


def run_of(train, validation, accuracy=None, source=()):
    """A history: ``train`` has two records an evaluation."""
    history = [
        {"step": 0, "split": "source", "accuracy": value} for value in source[:1]
    ]
    for i, loss in enumerate(train):
        history.append({"step": 5 * (i + 1), "split": "train", "loss": loss})
    for i, loss in enumerate(validation):
        step = 10 * (i + 1)
        scores = {"loss": loss, "accuracy": (accuracy or [0.5] * 9)[i]}
        history.append({"step": step, "split": "validation", **scores})
        if source:
            value = source[i + 1]
            history.append({"step": step, "split": "source", "accuracy": value})
    return sorted(history, key=lambda r: r["step"])


SOUND = {
    "train": [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.4],
    "validation": [0.9, 0.7, 0.6, 0.5],
    "accuracy": [0.6, 0.7, 0.8, 0.8],
    "source": [0.9, 0.9, 0.89, 0.88, 0.87],
}
TROUBLE = {
    "overfitting": {
        "accuracy": [0.6, 0.8, 0.75, 0.7],
        "says": "from step 20 on validation accuracy went from 0.8 to 0.7 while the "
        "training loss fell from 0.85 to 0.475",
    },
    "underfitting": {
        "train": [1.0, 0.99, 0.98, 0.99, 0.97, 0.98, 0.97, 0.97],
        "validation": [1.0, 0.99, 0.98, 0.97],
        "says": "went from 1 to 0.97 only",
    },
    "forgetting": {
        "source": [0.9, 0.8, 0.6, 0.5, 0.4],
        "says": "accuracy went from 0.9 to 0.4",
    },
    "domain gap": {
        "validation": [1.9, 1.5, 1.2, 0.9],
        "says": "2 to 2.2 times the training loss",
    },
}


def told(changes=None, **options):
    rows = {k: x for k, x in (SOUND | (changes or {})).items() if k != "says"}
    return diagnose(run_of(**rows), metric="accuracy", mode="max", **options)


def test_sound_run_has_no_warning():
    assert told(drift={0: 0.05, 1: 0.02}) == []


@pytest.mark.parametrize("kind", TROUBLE)
def test_names_one_trouble_with_its_figures(kind):
    (text,) = told(TROUBLE[kind])
    assert text.startswith(f"{kind}: ")
    assert TROUBLE[kind]["says"] in text


def test_metrics_that_are_better_when_smaller():
    history = run_of(SOUND["train"], [0.9, 0.5, 0.6, 0.7])
    (text,) = diagnose(history, metric="loss", mode="min")
    assert text.startswith("overfitting: from step 20 on validation loss went from 0.5")


def test_one_bad_evaluation_is_no_overfitting():
    assert told({"accuracy": [0.6, 0.7, 0.8, 0.5]}) == []


def test_a_source_metric_that_is_better_where_lower_is_forgotten_upwards():
    changes = {"source": [0.9, 0.6, 0.5, 0.45, 0.4]}
    assert told(changes, source_mode="min") == []
    changes = {"source": [0.4, 0.6, 0.5, 0.45, 0.9]}
    (text,) = told(changes, source_mode="min")
    assert "accuracy went from 0.4 to 0.9" in text


def test_the_layer_that_moved_most_is_named():
    (text,) = told(drift={3: 0.31, 1: 0.2})
    assert "layer 3 moved by 31% of their norm (over 10%)" in text


def test_runs_without_evaluation_or_finite_numbers_are_left_alone():
    assert diagnose([], metric="accuracy", mode="max") == []
    history = run_of([math.nan, math.nan], [math.nan])
    assert diagnose(history, metric="accuracy", mode="max") == []


def test_drift_is_relative_and_leaves_out_what_is_new():
    before = {"low": np.array([3.0, 4.0]), "top": np.ones(4), "head": np.ones(2)}
    after = {"low": np.array([3.0, 4.5]), "top": before["top"], "head": np.zeros(2)}
    depth = {"low": 1, "top": 2, "head": 3}
    drift = weight_drift(before, after, layer_index=depth.get, new=("head",))
    assert drift == pytest.approx({1: 0.1})
