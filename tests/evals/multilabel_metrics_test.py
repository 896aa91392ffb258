# SPDX-License-Identifier: Apache-2.0
"""scikit-learn's functions called on whole matrices, as its users do."""

import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from jft.evals import MULTILABEL_METRICS, class_f1s

N, C = 50, 6
REFERENCE = {
    "macro_f1": lambda t, x: sk.f1_score(t.astype(int), x > 0, average="macro"),
    "mean_average_precision": lambda t, x: sk.average_precision_score(t, x),
    "micro_f1": lambda t, x: sk.f1_score(t.astype(int), x > 0, average="micro"),
    "roc_auc": lambda t, x: sk.roc_auc_score(t, x),
    "subset_accuracy": lambda t, x: sk.accuracy_score(t.astype(int), x > 0),
}


def make_case():
    generator = np.random.default_rng(0)
    targets = (generator.random((N, C)) < 0.3).astype(np.float32)
    logits = generator.normal(size=(N, C)) + 3.0 * targets - 1.5
    return targets, logits.astype(np.float32)


def test_every_metric_has_a_reference():
    assert MULTILABEL_METRICS.keys() == REFERENCE.keys()


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_equals_the_reference(name):
    targets, logits = make_case()
    score = MULTILABEL_METRICS[name](targets, logits)
    np.testing.assert_allclose(score, REFERENCE[name](targets, logits), rtol=1e-12)
    assert 0.0 < score < 1.0


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_classes_that_never_or_always_hold(value):
    targets, logits = make_case()
    targets[:, 2] = value
    rest = np.delete(targets, 2, axis=1), np.delete(logits, 2, axis=1)
    for name, reference in REFERENCE.items():
        score = MULTILABEL_METRICS[name](targets, logits)
        undefined = name == "roc_auc" or (
            name == "mean_average_precision" and value == 0.0
        )
        expected = reference(*(rest if undefined else (targets, logits)))
        np.testing.assert_allclose(score, expected, rtol=1e-12, err_msg=name)


def test_a_class_that_never_comes_has_f1_0_as_with_a_warning():
    targets, logits = make_case()
    targets[:, 1], logits[:, 1] = 0.0, -1.0
    with warnings.catch_warnings(action="ignore"):
        expected = sk.f1_score(targets.astype(int), logits > 0, average=None)
    assert expected[1] == 0.0
    np.testing.assert_allclose(class_f1s(targets, logits), expected, rtol=1e-12)
    score = MULTILABEL_METRICS["macro_f1"](targets, logits)
    np.testing.assert_allclose(score, expected.mean(), rtol=1e-12)


def test_what_no_class_defines_is_no_number():
    targets = np.zeros((3, 2), np.float32)
    logits = np.ones((3, 2), np.float32)
    assert np.isnan(MULTILABEL_METRICS["mean_average_precision"](targets, logits))
    assert np.isnan(MULTILABEL_METRICS["roc_auc"](targets, logits))
    assert MULTILABEL_METRICS["micro_f1"](targets, logits) == 0.0
