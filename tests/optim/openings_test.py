# SPDX-License-Identifier: Apache-2.0
"""Openings open the groups that their papers say, at the steps they say."""

import math

import jax
import jax.numpy as jnp
import pytest

from jft.optim import (
    all_open,
    chain_thaw,
    is_open,
    lp_ft,
    normalize_open_at,
    plateau_opening,
    top_down,
)
from jft.types import InputError


def open_groups(open_at, step):
    windows = normalize_open_at(open_at)
    return {group for group, spans in windows.items() if is_open(spans, step)}


def test_top_down_opens_one_more_layer_at_a_time():
    open_at = top_down(2, every=10, start=5)
    assert open_groups(open_at, 4) == set()
    assert open_groups(open_at, 5) == open_groups(open_at, 14) == {3}
    assert open_groups(open_at, 15) == {3, 2}
    assert open_groups(open_at, 25) == {3, 2, 1}
    assert open_groups(open_at, 35) == open_groups(open_at, 10**6) == {3, 2, 1, 0}
    assert list(open_at) == [3, 2, 1, 0]


def test_chain_thaw_opens_head_then_each_layer_alone_then_all():
    open_at = chain_thaw(2, every=10)
    phases = [open_groups(open_at, step) for step in range(5, 75, 10)]
    everything = {0, 1, 2, 3}
    assert phases == [{3}, {0}, {1}, {2}, everything, everything, everything]
    assert open_groups(open_at, 9) == {3}
    assert open_groups(open_at, 10) == {0}
    assert open_groups(open_at, 39) == {2}
    assert open_groups(open_at, 40) == everything


def test_lp_ft_opens_the_head_and_then_the_rest_at_once():
    open_at = lp_ft(2, probe_steps=7)
    assert open_groups(open_at, 0) == open_groups(open_at, 6) == {3}
    assert open_groups(open_at, 7) == open_groups(open_at, 99) == {0, 1, 2, 3}
    with pytest.raises(InputError, match="0 steps"):
        lp_ft(2, probe_steps=0)


def test_all_open_is_every_layer_from_the_start():
    assert open_groups(all_open(3), 0) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("windows", [((2, 4), (6, None)), ((3, None),), (), ((0, 1),)])
def test_is_open_is_the_same_traced(windows):
    traced = jax.jit(lambda step: jnp.asarray(is_open(windows, step)))
    for step in range(8):
        expected = any(a <= step and (b is None or step < b) for a, b in windows)
        assert bool(is_open(windows, step)) is expected
        assert bool(traced(jnp.int32(step))) is expected


@pytest.mark.parametrize(
    "value", [-1, ((3, 3),), ((4, 2),), ((0, 5), (4, 8)), ((0, None), (9, None))]
)
def test_bad_windows(value):
    with pytest.raises(InputError, match="group 'g' has the opening"):
        normalize_open_at({"g": value})


@pytest.mark.parametrize("make", [top_down, chain_thaw])
def test_openings_need_steps_between_them(make):
    with pytest.raises(InputError, match="every 0 steps"):
        make(3, every=0)


NAN = math.nan


@pytest.mark.parametrize(
    ("scores", "num_open"),
    [
        ([], 1),
        ([0.1, 0.2, 0.3, 0.4], 1),
        ([0.4, 0.4], 1),
        ([0.4, 0.4, 0.3], 2),
        ([0.4, 0.4, 0.3, 0.5, 0.4], 2),
        ([0.4, 0.4, 0.3, 0.5, 0.4, 0.5], 3),
        ([0.4] * 5, 3),
        ([0.4] * 50, 3),
        ([NAN, NAN], 2),
        ([0.4, NAN, 0.5, NAN, NAN], 2),
    ],
)
@pytest.mark.parametrize("mode", ["max", "min"])
def test_plateau_opens_one_group_after_patience(scores, num_open, mode):
    sign = 1 if mode == "max" else -1
    signed = [sign * score for score in scores]
    groups = ["head", "top", "rest"]
    opened = plateau_opening(signed, groups=groups, patience=2, mode=mode)
    assert opened == frozenset(groups[:num_open])


def test_plateau_min_delta_is_what_counts_as_better():
    scores, groups = [0.50, 0.51, 0.52], [1, 0]
    assert plateau_opening(scores, groups=groups, patience=2) == {1}
    assert plateau_opening(scores, groups=groups, patience=2, min_delta=0.05) == {1, 0}


def test_plateau_never_closes_what_a_shorter_history_opened():
    scores = [0.1, 0.1, 0.4, 0.3, 0.3, 0.9, 0.8, 0.8, 0.8, 0.8]
    before = frozenset()
    for end in range(len(scores) + 1):
        now = plateau_opening(scores[:end], groups=range(4), patience=2)
        assert before <= now
        before = now
    assert len(before) == 4


@pytest.mark.parametrize(
    "options", [{"patience": 0}, {"patience": 1, "mode": "best"}, {"groups": []}]
)
def test_bad_plateau(options):
    arguments = {"groups": [1], "patience": 1} | options
    with pytest.raises((InputError, TypeError)):
        plateau_opening([0.1], **arguments)
