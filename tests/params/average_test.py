# SPDX-License-Identifier: Apache-2.0
"""Models between two and soups of several are the papers'; unlike ones are refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from jft.params import greedy_soup, interpolate, uniform_soup
from jft.types import InputError


def draw(seed, **shapes):
    rng = np.random.default_rng(seed)
    return {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}


def test_a_point_between_two_models_is_the_papers_and_the_ends_are_exact():
    old, new = draw(0, w=(3, 2), b=2), draw(1, w=(3, 2), b=2)
    for alpha in (0.0, 0.3, 1.0):
        point = interpolate(old, new, alpha)
        for name in old:
            expected = np.float64(old[name]) + alpha * np.float64(new[name] - old[name])
            np.testing.assert_allclose(point[name], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(interpolate(old, new, 0.0)["w"], old["w"])
    np.testing.assert_array_equal(interpolate(old, new, 1.0)["w"], new["w"])


def test_heads_that_are_kept_are_the_second_models():
    old = draw(0, body=2, old_head=3) | {"head": np.zeros(3)}
    new = draw(1, body=2, head=4)
    point = interpolate(old, new, 0.5, keep=["head"])
    assert set(point) == {"body", "head"}
    np.testing.assert_array_equal(point["head"], new["head"])


def test_half_precision_is_mixed_in_float32():
    old = {"w": jnp.full(1, 256.0, jnp.bfloat16)}
    new = {"w": jnp.full(1, 258.0, jnp.bfloat16)}
    point = interpolate(old, new, 0.999)
    assert point["w"].dtype == jnp.bfloat16
    assert float(point["w"][0]) == 258.0


@pytest.mark.parametrize(
    ("alpha", "new", "words"),
    [
        (-0.1, {"w": (2,)}, "alpha is -0.1"),
        (1.1, {"w": (2,)}, "alpha is 1.1"),
        (0.5, {"w": (3,)}, r"'w': \(\(2,\), \(3,\)\)"),
        (0.5, {"w": (2,), "b": (1,)}, r"Only in the second: \['b'\]"),
    ],
)
def test_models_that_are_not_alike_are_refused(alpha, new, words):
    with pytest.raises(InputError, match=words):
        interpolate(draw(0, w=(2,)), draw(1, **new), alpha)


# --- soups ----------------------------------------------------------------------------
def test_a_uniform_soup_is_the_mean():
    models = [draw(seed, w=(3, 2), b=(2,)) for seed in range(5)]
    soup = uniform_soup(iter(models))
    for name in soup:
        mean = np.mean([model[name] for model in models], axis=0)
        np.testing.assert_allclose(soup[name], mean, rtol=1e-5, atol=1e-6)


def by_hand(models, score, better):
    """The paper's recipe 1, every average taken anew."""
    ranked = sorted(range(len(models)), key=lambda i: score(models[i]))
    ranked = ranked if better(0, 1) else ranked[::-1]
    chosen = []
    best = None
    for index in ranked:
        tried = [*chosen, index]
        mean = {"w": np.mean([models[i]["w"] for i in tried], axis=0)}
        if best is None or not better(best, score(mean)):
            chosen, best = tried, score(mean)
    return chosen, best


@pytest.mark.parametrize("mode", ["max", "min"])
def test_a_greedy_soup_is_the_papers(mode):
    sign = 1 if mode == "max" else -1
    sizes = set()
    for seed in range(8):
        models = [draw(10 * seed + i, w=(2,)) for i in range(6)]

        def score(params):
            return -sign * float(np.sum(np.square(np.asarray(params["w"]) - 0.3)))

        scores = [score(model) for model in models]
        soup = greedy_soup(scores, models.__getitem__, score, mode=mode)
        chosen, best = by_hand(models, score, lambda a, b: sign * a > sign * b)
        assert list(soup.chosen) == chosen
        assert soup.score == pytest.approx(best, abs=1e-6)
        assert sign * soup.score >= sign * sorted(scores, key=lambda x: -sign * x)[0]
        sizes.add(len(chosen))
    assert len(sizes) > 1  # or nothing was decided


def test_an_equal_score_is_taken_in():
    models = [draw(i, w=(2,)) for i in range(3)]
    soup = greedy_soup([1.0] * 3, models.__getitem__, lambda params: 1.0)
    assert soup.chosen == (0, 1, 2)


def test_soups_of_nothing_and_of_unlike_models_are_refused():
    with pytest.raises(InputError, match="no model was given"):
        uniform_soup([])
    with pytest.raises(InputError, match="no model was given"):
        greedy_soup([], {}.__getitem__, len)
    with pytest.raises(InputError, match="mode is 'best'"):
        greedy_soup([1.0], {}.__getitem__, len, mode="best")
    for shapes, words in (
        ({"w": (3,)}, "Of other shapes"),
        ({"v": (2,)}, r"Only in the first: \['w'\]. Only in the second: \['v'\]"),
        ({}, r"Only in the first: \['w'\]"),
    ):
        with pytest.raises(InputError, match=words):
            uniform_soup([draw(0, w=(2,)), draw(1, **shapes)])
