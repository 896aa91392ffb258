# SPDX-License-Identifier: Apache-2.0
"""Pictures of a run show its curves, openings and rates, diverged or not."""

import sys

import jax.numpy as jnp
import numpy as np
import pytest

from jft.evals import (
    learning_rates,
    opening_names,
    plot_curves,
    plot_forgetting,
    plot_learning_rates,
)
from jft.evals.canvas import _spread, smooth
from jft.evals.plots import layer_name

NUM_LAYERS = 2
TOP_DOWN = [
    (0, 4, frozenset({3})),
    (4, 8, frozenset({2, 3})),
    (8, 20, frozenset({0, 1, 2, 3})),
]
CHAIN = [
    (0, 5, frozenset({3})),
    (5, 10, frozenset({0})),
    (10, 20, frozenset({0, 1, 2, 3})),
]


def make_history(num=60):
    for step in range(1, num + 1):
        yield {"step": step, "split": "train", "loss": 1.0 / step}
        if step % 5 == 0:
            for split in ("validation", "source"):
                scores = {"loss": 2.0 / step, "accuracy": 1 - 1 / step}
                yield {"step": step, "split": split, **scores}


def read_png(path):
    from PIL import Image

    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def near(image, colour):
    """Count pixels of about a colour."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(image.astype(int) - wanted).max(-1) < 12).sum())


BLUE, ORANGE = "#0072B2", "#D55E00"


def test_openings_are_named_by_what_is_new():
    names = opening_names(TOP_DOWN, num_layers=NUM_LAYERS)
    assert names == {0: "head", 4: "block 1", 8: "block 0 + embeddings"}
    assert opening_names(CHAIN, num_layers=NUM_LAYERS)[10] == "3 layers"
    everything = [(0, 9, frozenset(range(4)))]
    assert opening_names(everything, num_layers=NUM_LAYERS) == {0: "all"}
    closing = [(0, 3, frozenset({2, 3})), (3, 9, frozenset({3}))]
    assert list(opening_names(closing, num_layers=NUM_LAYERS)) == [0]


def test_rates_are_schedule_times_multiplier_and_nan_while_closed():
    multipliers = {layer: 0.5 ** (3 - layer) for layer in range(4)}
    rates = learning_rates(lambda step: 0.1 * jnp.float32(step + 1), multipliers, CHAIN)
    base = 0.1 * (np.arange(20) + 1)
    steps = np.arange(20)
    is_open = {3: (steps < 5) | (steps >= 10), 0: steps >= 5, 1: steps >= 10}
    for layer, moves in is_open.items():
        expected = np.where(moves, multipliers[layer] * base, np.nan)
        np.testing.assert_allclose(rates[layer], expected, rtol=1e-6)


def test_a_constant_schedule_has_rates_too():
    rates = learning_rates(lambda step: 0.25, {3: 1.0}, TOP_DOWN)
    np.testing.assert_array_equal(rates[3], np.full(20, 0.25))


def test_curves_show_both_splits_and_ring_the_best(tmp_path):
    history, names = list(make_history()), {0: "head", 30: "block 1"}
    plain = plot_curves(history, tmp_path / "a.png", opening_steps=names)
    ringed = plot_curves(history, tmp_path / "b.png", opening_steps=names, best_step=40)
    assert near(read_png(plain), BLUE) > 500
    assert near(read_png(plain), ORANGE) == 0
    assert near(read_png(ringed), ORANGE) > 100


def test_curves_of_a_run_that_recorded_nothing(tmp_path):
    path = plot_curves([], tmp_path / "a.png", opening_steps={0: "head"})
    assert near(read_png(path), BLUE) == 0


def test_a_diverged_run_is_still_drawn(tmp_path):
    history = [
        {"step": s, "split": split, "loss": loss, "accuracy": 0.5}
        for s, loss in ((1, 1.0), (2, float("nan")), (3, float("inf")))
        for split in ("train", "validation")
    ]
    read_png(plot_curves(history, tmp_path / "a.png", opening_steps={}))


def test_closed_strips_are_blank(tmp_path):
    rates = learning_rates(lambda step: 0.1, dict.fromkeys(range(4), 1.0), TOP_DOWN)
    path = plot_learning_rates(rates, tmp_path / "a.png", num_layers=NUM_LAYERS)
    image = read_png(path)
    ink = (image < 100).all(-1)[:, 120:850]  # the strips, without names and bar
    runs = np.unique([row.sum() for row in ink if row.sum() > 200])
    assert len(runs) >= 3  # three different lengths: 0 to 20, 4 to 20, 8 to 20


@pytest.mark.parametrize("rate", [0.0, np.nan])
def test_rates_that_are_never_positive_are_drawn(tmp_path, rate):
    rates = {layer: np.full(5, rate) for layer in range(4)}
    read_png(plot_learning_rates(rates, tmp_path / "a.png", num_layers=NUM_LAYERS))


def test_forgetting_shows_both_tasks(tmp_path):
    path = plot_forgetting(
        list(make_history()),
        tmp_path / "a.png",
        source_name="letters",
        target_name="digits",
        opening_steps={0: "head"},
    )
    image = read_png(path)
    assert near(image, BLUE) > 300
    assert near(image, ORANGE) > 300


def test_pictures_leave_matplotlib_as_it_was(tmp_path):
    import matplotlib

    sys.modules.pop("matplotlib.pyplot", None)
    with matplotlib.rc_context({"font.size": 17.0}):
        before = dict(matplotlib.rcParams)
        plot_curves([], tmp_path / "a.png", opening_steps={})
        assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules


def test_labels_are_moved_apart_around_their_middle():
    assert _spread([0.1, 0.5, 0.9], 0.1) == [0.1, 0.5, 0.9]
    moved = _spread([0.5, 0.5, 0.52], 0.1)
    np.testing.assert_allclose(np.diff(moved), 0.1)
    np.testing.assert_allclose(np.mean(moved), np.mean([0.5, 0.5, 0.52]))


def test_smoothing_skips_what_is_not_finite():
    np.testing.assert_allclose(smooth(np.array([1.0, np.nan, 3.0]), width=3), [1, 2, 3])


def test_every_layer_has_its_own_name():
    names = [layer_name(layer, num_layers=12) for layer in range(14)]
    assert len(set(names)) == 14
    assert names[1] == "block 0"
