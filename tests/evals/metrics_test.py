# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from jft.evals import METRICS, compute_metrics
from jft.types import InputError

NUM_CLASSES = 7


def _top_k(targets, logits, k):
    rank = (logits > logits[np.arange(len(targets)), targets][:, None]).sum(1)
    return (rank < k).mean()


def _recalls(targets, logits):
    hits = logits.argmax(1) == targets
    return [hits[targets == c].mean() for c in np.unique(targets)]


def _f1s(targets, logits):
    predicted = logits.argmax(1)
    for c in np.union1d(targets, predicted):
        hit = np.sum((predicted == c) & (targets == c))
        yield 2 * hit / (np.sum(predicted == c) + np.sum(targets == c))


def _matthews(targets, logits):
    one_hot = np.eye(NUM_CLASSES)
    t, p = one_hot[targets], one_hot[logits.argmax(1)]
    t, p = t - t.mean(0), p - p.mean(0)
    return (t * p).sum() / np.sqrt((t * t).sum() * (p * p).sum())


def _log_loss(targets, logits):
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return -np.log(probs[np.arange(len(targets)), targets]).mean()


BY_HAND = {
    "accuracy": lambda t, x: np.mean(x.argmax(1) == t),
    "balanced_accuracy": lambda t, x: np.mean(_recalls(t, x)),
    "log_loss": _log_loss,
    "macro_f1": lambda t, x: np.mean(list(_f1s(t, x))),
    "matthews_correlation": _matthews,
    "top_3_accuracy": lambda t, x: _top_k(t, x, 3),
    "top_5_accuracy": lambda t, x: _top_k(t, x, 5),
}


def _case(num=60, present=NUM_CLASSES):
    generator = np.random.default_rng(0)
    targets = generator.integers(0, present, num)
    logits = generator.normal(size=(num, NUM_CLASSES))
    logits[np.arange(num), targets] += 1.0
    return targets, logits


def test_every_metric_has_a_hand_formula():
    assert set(METRICS) == set(BY_HAND)


@pytest.mark.parametrize("present", [NUM_CLASSES, 4])  # 4: some classes never targets
@pytest.mark.parametrize("name", sorted(METRICS))
def test_equals_the_hand_formula(name, present):
    targets, logits = _case(present=present)
    scores = compute_metrics(targets, logits, metric_names=[name])
    assert list(scores) == [name]
    assert type(scores[name]) is float
    np.testing.assert_allclose(scores[name], BY_HAND[name](targets, logits), rtol=1e-12)
    assert 0.0 < scores[name] < 3.0


def test_log_loss_does_not_saturate():
    logits = np.array([[1000.0, 0.0], [0.0, 1000.0]], np.float32)
    assert METRICS["log_loss"](np.array([1, 1]), logits) == 500.0


def test_a_diverged_model_has_no_score():
    targets, logits = _case()
    logits[3, 2] = np.nan
    scores = compute_metrics(targets, logits, metric_names=sorted(METRICS))
    assert all(np.isnan(value) for value in scores.values())


@pytest.mark.parametrize(
    ("targets", "names", "message"),
    [
        (np.array([0]), ["acuracy"], r"unknown metrics \['acuracy'\].*'accuracy'"),
        (np.array([], np.int32), ["accuracy"], "no real example"),
        (np.array([3]), ["accuracy"], r"\[3, 3\].*3 classes, 0 to 2"),
        (np.array([-1]), ["accuracy"], r"\[-1, -1\]"),
        (np.array([0]), ["top_3_accuracy"], "always 1 for 3 classes"),
    ],
)
def test_bad_input_is_named(targets, names, message):
    logits = np.zeros((len(targets), 3))
    with pytest.raises(InputError, match=message):
        compute_metrics(targets, logits, metric_names=names)
