# SPDX-License-Identifier: Apache-2.0
"""Hand formulas, and scikit-learn's functions called as its users do."""

import numpy as np
import pytest
from sklearn import metrics as sk

from jft.evals import CLASSIFICATION_METRICS
from jft.types import InputError

NUM_CLASSES = 7


def _predictions(logits):
    return [int(np.argmax(row)) for row in logits]


def _top_k(targets, logits, k):
    rank = (logits > logits[np.arange(len(targets)), targets][:, None]).sum(1)
    return (rank < k).mean()


def _log_loss(targets, logits):
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return -np.log(probs[np.arange(len(targets)), targets]).mean()


def _f1(average, **options):
    return lambda t, x: sk.f1_score(t, _predictions(x), average=average, **options)


REFERENCE = {
    "accuracy": lambda t, x: np.mean(x.argmax(1) == t),
    "balanced_accuracy": lambda t, x: np.mean(
        [np.mean(x.argmax(1)[t == c] == c) for c in np.unique(t)]
    ),
    "f1": _f1("binary"),
    "log_loss": _log_loss,
    "macro_f1": _f1("macro"),
    "matthews_correlation": lambda t, x: sk.matthews_corrcoef(t, _predictions(x)),
    "top_3_accuracy": lambda t, x: _top_k(t, x, 3),
    "top_5_accuracy": lambda t, x: _top_k(t, x, 5),
    "weighted_f1": _f1("weighted"),
}


def _case(*, present=NUM_CLASSES, classes=NUM_CLASSES, num=60):
    generator = np.random.default_rng(0)
    targets = generator.integers(0, present, num)
    logits = generator.normal(size=(num, classes))
    logits[np.arange(num), targets] += 1.0
    return targets, logits


def test_every_metric_has_a_reference():
    assert CLASSIFICATION_METRICS.keys() == REFERENCE.keys()


@pytest.mark.parametrize("present", [NUM_CLASSES, 4])  # 4: some classes never targets
@pytest.mark.parametrize("name", sorted(set(REFERENCE) - {"f1"}))
def test_equals_the_reference(name, present):
    targets, logits = _case(present=present)
    score = CLASSIFICATION_METRICS[name](targets, logits)
    assert type(score) is float
    np.testing.assert_allclose(score, REFERENCE[name](targets, logits), rtol=1e-12)
    assert 0.0 < score < 3.0


@pytest.mark.parametrize("name", sorted(n for n in REFERENCE if "top" not in n))
def test_two_classes(name):
    targets, logits = _case(present=2, classes=2)
    score = CLASSIFICATION_METRICS[name](targets, logits)
    np.testing.assert_allclose(score, REFERENCE[name](targets, logits), rtol=1e-12)


def test_f1_where_class_1_never_comes_is_0_without_a_warning():
    logits = np.array([[1.0, 0.0], [2.0, 0.0]])
    assert CLASSIFICATION_METRICS["f1"](np.array([0, 0]), logits) == 0.0


def test_log_loss_does_not_saturate():
    logits = np.array([[1000.0, 0.0], [0.0, 1000.0]], np.float32)
    assert CLASSIFICATION_METRICS["log_loss"](np.array([1, 1]), logits) == 500.0


@pytest.mark.parametrize("name", sorted(REFERENCE))
@pytest.mark.parametrize("target", [-1, 2])
def test_targets_outside_the_classes_are_refused(name, target):
    if "top" in name:
        pytest.skip("needs more classes")
    with pytest.raises(InputError, match=rf"\[{target}, {target}\].*2 classes, 0 to 1"):
        CLASSIFICATION_METRICS[name](np.array([target]), np.zeros((1, 2)))


@pytest.mark.parametrize(
    ("name", "message"),
    [("top_3_accuracy", "always 1 for 3 classes"), ("f1", "there are 3 classes")],
)
def test_metrics_that_do_not_fit_the_classes_are_refused(name, message):
    with pytest.raises(InputError, match=message):
        CLASSIFICATION_METRICS[name](np.array([0]), np.zeros((1, 3)))
