# SPDX-License-Identifier: Apache-2.0
"""Openings become phases that follow each other without a gap."""

import pytest

from jft.optim import chain_thaw, top_down
from jft.train import phases
from jft.types import InputError


def test_top_down_opens_one_more_each_time():
    listed = phases(top_down(2, every=10), 100)
    assert [(p.start, p.stop, sorted(p.trainable)) for p in listed] == [
        (0, 10, [3]),
        (10, 20, [2, 3]),
        (20, 30, [1, 2, 3]),
        (30, 100, [0, 1, 2, 3]),
    ]


def test_chain_thaw_closes_again():
    listed = phases(chain_thaw(2, every=5), 40)
    assert [sorted(p.trainable) for p in listed] == [[3], [0], [1], [2], [0, 1, 2, 3]]
    assert listed[-1].stop == 40


def test_no_openings_is_one_phase():
    assert phases({0: 0, 1: 0}, 7) == [(0, 7, frozenset({0, 1}))]


def test_openings_after_the_end_are_refused():
    with pytest.raises(InputError, match=r"steps \{1: 30, 0: 40\}.*after step 30"):
        phases({2: 0, 1: 30, 0: 40}, 30)


def test_a_gap_is_refused():
    with pytest.raises(InputError, match=r"no group is open in steps \[\(0, 5\)\]"):
        phases({0: 5}, 10)
