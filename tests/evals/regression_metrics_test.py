# SPDX-License-Identifier: Apache-2.0
"""Metrics of numbers equal formulas by hand; a probe finds what is separable."""

import numpy as np
import pytest
from scipy.stats import rankdata

from jft.evals import EMBEDDING_METRICS, REGRESSION_METRICS, probe_accuracy
from jft.types import InputError


def _pearson(t, x):
    return np.corrcoef(t, x)[0, 1]


BY_HAND = {
    "mae": lambda t, x: np.abs(t - x).mean(),
    "pearson": _pearson,
    "r2": lambda t, x: 1 - np.square(t - x).sum() / np.square(t - t.mean()).sum(),
    "rmse": lambda t, x: np.sqrt(np.square(t - x).mean()),
    "spearman": lambda t, x: _pearson(rankdata(t), rankdata(x)),
}


def make_case():
    generator = np.random.default_rng(0)
    targets = np.round(generator.normal(size=40), 1).astype(np.float32)  # with ties
    return targets, (targets + generator.normal(size=40)).astype(np.float32)


def test_every_metric_has_a_hand_formula():
    assert REGRESSION_METRICS.keys() == BY_HAND.keys()
    assert EMBEDDING_METRICS.keys() == {"pearson", "spearman"}


@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_equals_the_hand_formula(name):
    targets, values = make_case()
    wide = targets.astype(np.float64), values.astype(np.float64)
    expected = BY_HAND[name](*wide)
    score = REGRESSION_METRICS[name](targets, values)
    np.testing.assert_allclose(score, expected, rtol=1e-9)
    assert expected not in (0.0, 1.0)
    if name in EMBEDDING_METRICS:
        assert EMBEDDING_METRICS[name](targets, values) == score


@pytest.mark.parametrize("num", [1, 5])
def test_a_constant_has_no_correlation(num):
    constant, other = np.full(num, 2.0), np.arange(num, dtype=float)
    for name in ("pearson", "spearman"):
        assert np.isnan(REGRESSION_METRICS[name](other, constant))
        assert np.isnan(REGRESSION_METRICS[name](constant, other))
    assert np.isnan(REGRESSION_METRICS["r2"](constant, constant))
    assert REGRESSION_METRICS["mae"](constant, constant) == 0.0


def make_clouds(num, seed):
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, 3, num)
    centres = 2.0 * np.eye(3, 4)
    return centres[targets] + generator.normal(size=(num, 4)), targets


def test_a_probe_learns_what_can_be_separated():
    train, train_targets = make_clouds(60, 0)
    test, targets = make_clouds(200, 1)
    score = probe_accuracy(train, train_targets, test, targets)
    nearest = ((test[:, None] - 2.0 * np.eye(3, 4)) ** 2).sum(-1).argmin(1)
    assert abs(score - np.mean(nearest == targets)) < 0.05  # the best there is
    assert abs(probe_accuracy(train, train_targets[::-1], test, targets) - 1 / 3) < 0.25


def test_a_probe_needs_examples():
    data, targets = make_clouds(9, 0)
    assert np.isnan(probe_accuracy(data, targets, data[:0], targets[:0]))
    broken = np.where(np.arange(4) == 1, np.nan, data)
    assert np.isnan(probe_accuracy(data, targets, broken, targets))
    assert np.isnan(probe_accuracy(broken, targets, data, targets))
    with pytest.raises(InputError, match=r"was given 9 of \[2\]"):
        probe_accuracy(data, np.full(9, 2), data, targets)
