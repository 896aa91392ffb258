# SPDX-License-Identifier: Apache-2.0
"""Pictures of a task show scores and lengths to scale, even of nothing."""

import numpy as np
import pytest

from jft.evals import plot_class_f1s, plot_lengths, plot_regression
from jft.evals.task_plots import padding_share

BLUE, ORANGE, PALE = "#0072B2", "#D55E00", "#999999"
RNG = np.random.default_rng(0)


def read_png(path):
    from PIL import Image

    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def near(image, colour):
    """Where pixels are of about a colour."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return np.abs(image - wanted).max(-1) < 12


def test_right_predictions_lie_on_the_line(tmp_path):
    targets = RNG.normal(size=8).astype(np.float32)
    image = read_png(plot_regression(targets, targets, tmp_path / "a.png"))
    ys, xs = np.nonzero(image[..., 2] - image[..., 0] > 60)  # blue, see-through
    line_ys, line_xs = np.nonzero(near(image, ORANGE))
    slope, start = np.polyfit(line_xs, line_ys, 1)
    assert len(xs) > 100
    assert np.abs(slope * xs + start - ys).max() < 8


@pytest.mark.parametrize("num", [0, 1, 3])
def test_a_diverged_or_empty_regression_is_still_drawn(tmp_path, num):
    targets = np.zeros(num, np.float32)
    values = np.array([np.nan, 1.0, np.inf], np.float32)[:num]
    read_png(plot_regression(targets, values, tmp_path / "a.png"))


def test_bars_are_as_long_as_the_scores_and_the_best_is_on_top(tmp_path):
    f1s = {"PER": (0.4, 10), "LOC": (0.8, 7), "ORG": (0.0, 2)}
    image = read_png(plot_class_f1s(f1s, tmp_path / "a.png"))
    rows = near(image, BLUE).sum(axis=1)
    long, short = rows[rows > 0].max(), rows[rows > 0].min()
    np.testing.assert_allclose(short / long, 0.5, atol=0.02)
    assert rows.argmax() < np.flatnonzero(rows == short)[0]


def test_only_the_most_frequent_of_many_classes_are_drawn(tmp_path):
    f1s = {f"class {i}": (1.0, i) for i in range(9)}
    sizes = [
        read_png(plot_class_f1s(f1s, tmp_path / "a.png", max_classes=limit)).shape[0]
        for limit in (3, 9, 40)
    ]
    assert sizes[0] < sizes[1] == sizes[2]


def test_compiled_lengths_are_marked_and_cut_rows_pale(tmp_path):
    lengths = np.concatenate([RNG.integers(3, 100, 500), np.full(50, 150)])
    image = read_png(plot_lengths(lengths, [128, 32], tmp_path / "a.png"))
    columns = near(image, ORANGE).sum(axis=0)
    first, second = np.flatnonzero(columns > 0.9 * columns.max())[[0, -1]]
    assert second - first > 100
    is_bar = near(image, PALE).sum(axis=0) > 20
    assert np.flatnonzero(is_bar).max() > second
    all_fit = read_png(plot_lengths(lengths, [32, 160], tmp_path / "a.png"))
    assert near(all_fit, PALE).sum() < near(image, PALE).sum() / 2


@pytest.mark.parametrize("num", [0, 1])
def test_few_lengths_are_drawn(tmp_path, num):
    read_png(plot_lengths(np.full(num, 5), [8], tmp_path / "a.png"))


def test_padding_share_by_hand():
    lengths, shapes = RNG.integers(1, 200, 50), [128, 16, 64]
    kept = [min(n, 128) for n in lengths]
    taken = [min(shape for shape in shapes if shape >= n) for n in kept]
    expected = 1 - sum(kept) / sum(taken)
    np.testing.assert_allclose(padding_share(lengths, shapes), expected)
    assert padding_share(lengths[:0], shapes) == 0.0
