# SPDX-License-Identifier: Apache-2.0
"""Mistakes are counted as scikit-learn counts them, and shown in another colour."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from jft.evals import (
    plot_confusion,
)
from jft.evals.confusion import _confusion_title, confusion_counts

DATA = np.random.default_rng(0)


def draw(num_classes, num=200):
    targets = DATA.integers(0, num_classes, num)
    wrong = DATA.random(num) < 0.2
    return targets, np.where(wrong, DATA.integers(0, num_classes, num), targets)


def test_counts_equal_scikit_learn_with_a_class_that_never_comes():
    targets, predictions = draw(4)
    np.testing.assert_array_equal(
        confusion_counts(targets, predictions, num_classes=5),
        confusion_matrix(targets, predictions, labels=range(5)),
    )


def test_title_names_the_most_frequent_mistake():
    counts = np.array([[5, 0, 3], [1, 4, 0], [0, 0, 7]])
    assert _confusion_title(counts, ["a", "b", "c"]) == (
        "80.0% of 20 right\nmost often a is taken for c (3×)"
    )
    assert _confusion_title(np.diag([2, 2]), ["a", "b"]) == "100.0% of 4 right"


@pytest.mark.parametrize(
    "class_names",
    [["no", "yes"], [str(i) for i in range(10)], [f"class {i}" for i in range(30)]],
)
def test_right_is_blue_and_wrong_is_orange(tmp_path, class_names):
    from PIL import Image

    targets, predictions = draw(len(class_names))
    path = plot_confusion(targets, predictions, class_names, tmp_path / "a.png")
    with Image.open(path) as image:
        red, _, blue = np.asarray(image.convert("RGB")).astype(int).transpose(2, 0, 1)
    assert (blue - red > 60).sum() > 1000
    assert (red - blue > 15).sum() > 1000
