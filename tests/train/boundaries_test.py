# SPDX-License-Identifier: Apache-2.0
"""The boundaries kept save as much as any choice; what has moved is not read again."""

import itertools

import numpy as np
import pytest

from jft.train import Stretch, choose_boundaries, plan_boundaries


def layers_run(stretches, kept):
    """What a run costs, counted layer by layer."""
    total, readable = max(kept, default=0), np.inf
    for lowest, epochs in stretches:
        readable = min(readable, lowest)
        start = max((b for b in kept if b <= readable), default=0)
        total += epochs * (lowest - start)
    return total


@pytest.mark.parametrize("seed", range(40))
def test_no_other_choice_saves_more(seed):
    generator = np.random.default_rng(seed)
    stretches = [
        Stretch(int(generator.integers(0, 7)), float(generator.integers(1, 5)) / 2)
        for _ in range(generator.integers(1, 7))
    ]
    for most in range(5):
        chosen = choose_boundaries(stretches, most=most)
        assert len(chosen) <= most
        cheapest = min(
            layers_run(stretches, kept)
            for count in range(most + 1)
            for kept in itertools.combinations(range(1, 8), count)
        )
        assert layers_run(stretches, chosen) == pytest.approx(cheapest)


def test_a_head_alone_is_kept_at_its_boundary():
    assert choose_boundaries([Stretch(13, 3)], most=1) == (13,)


def test_what_moved_is_not_read_again():
    """A layer that opens and closes again has changed all above it."""
    thaw = [Stretch(4, 2), Stretch(0, 2), Stretch(4, 9)]
    assert choose_boundaries(thaw, most=3) == (4,)
    assert choose_boundaries(thaw[1:], most=3) == ()


def test_nothing_is_kept_where_nothing_is_saved():
    assert choose_boundaries([], most=3) == ()
    assert choose_boundaries([Stretch(0, 9)], most=3) == ()
    assert choose_boundaries([Stretch(4, 9)], most=0) == ()
    assert choose_boundaries([Stretch(4, 0.5)], most=3) == ()


def test_a_plan_reads_nothing_that_has_moved_since():
    thaw = [Stretch(4, 2), Stretch(0, 2), Stretch(3, 5), Stretch(4, 2)]
    assert plan_boundaries(thaw, most=3) == [(4,), (), (3,), (3,)]
    assert plan_boundaries(thaw, most=0) == [()] * 4
