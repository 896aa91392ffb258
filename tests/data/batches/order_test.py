# SPDX-License-Identifier: Apache-2.0
"""Every epoch has every row once, however grouped; a step needs none before it."""

import itertools
import pickle

import numpy as np
import pytest

from jft.data.batches.order import RowOrder, grouped_order, mixed_order


def make_lengths(num, seed=0):
    return np.random.default_rng(seed).integers(1, 200, num)


def make_order(num, batch_size, *, arranged, seed=3):
    return RowOrder(
        num,
        seed=seed,
        batch_size=batch_size,
        lengths=None if arranged == "plain" else make_lengths(num),
        mixed=arranged == "mixed",
    )


@pytest.mark.parametrize("arranged", ["plain", "grouped", "mixed"])
@pytest.mark.parametrize(
    ("num", "batch_size"), [(100, 10), (103, 10), (7, 10), (1, 4), (3, 10), (999, 7)]
)
def test_every_epoch_has_every_row_once(num, batch_size, arranged):
    order = make_order(num, batch_size, arranged=arranged)
    batches = [order.rows(step) for step in range(-(-4 * num // batch_size))]
    assert {len(rows) for rows in batches} == {batch_size}
    stream = np.concatenate(batches)
    epochs = [stream[e * num : (e + 1) * num] for e in range(4)]
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(num))
    if num > 50:
        assert len({tuple(epoch) for epoch in epochs}) == 4


@pytest.mark.parametrize("arranged", ["plain", "grouped", "mixed"])
def test_a_step_does_not_depend_on_the_steps_before(arranged):
    forth, back = (make_order(103, 10, arranged=arranged) for _ in range(2))
    expected = [forth.rows(step) for step in range(60)]
    back = pickle.loads(pickle.dumps(back))
    for step in reversed(range(60)):
        np.testing.assert_array_equal(back.rows(step), expected[step])
    other = make_order(103, 10, arranged=arranged, seed=4)
    assert any((other.rows(i) != expected[i]).any() for i in range(10))


@pytest.mark.parametrize("first", [0, 1, 5, 9])
def test_in_one_window_batches_are_stretches_of_the_sorted_rows(first):
    lengths = make_lengths(203)
    order = grouped_order(lengths, np.random.default_rng(0), batch_size=10, first=first)
    ends = [0, *range(first, 203, 10), 203] if first else [*range(0, 203, 10), 203]
    pieces = [lengths[order[a:b]] for a, b in itertools.pairwise(ends)]
    pieces = sorted((x for x in pieces if len(x)), key=lambda x: (x.min(), x.max()))
    for short, long in itertools.pairwise(pieces):
        assert short.max() <= long.min()


def test_windows_are_drawn_from_the_whole_epoch_and_batches_are_shuffled():
    lengths = np.arange(4000)
    order = grouped_order(
        lengths, np.random.default_rng(0), batch_size=4, first=2, window=50
    )
    batches = order[2:-2].reshape(-1, 4)
    # sorted in windows of 200 of 4,000: neighbours are about 20 apart
    spread = np.ptp(batches, axis=1)
    assert 40 < np.median(spread) < 80
    assert spread.max() < 400  # also of the batches that lie on two windows
    starts = batches[:, 0]
    assert abs(np.corrcoef(starts, np.arange(len(starts)))[0, 1]) < 0.1
    assert abs(np.corrcoef(starts[:-1], starts[1:])[0, 1]) < 0.1


def test_rows_of_one_length_come_in_a_random_order():
    order = grouped_order(np.full(500, 7), np.random.default_rng(0), batch_size=5)
    assert abs(np.corrcoef(order, np.arange(500))[0, 1]) < 0.2


def test_grouping_follows_the_borders_of_the_batches_in_every_epoch():
    """An epoch of 103 rows in batches of 10 begins at another place each time."""
    lengths = make_lengths(103)
    order = make_order(103, 10, arranged="grouped")
    spreads = [np.ptp(lengths[order.rows(step)]) for step in range(103)]
    inside = [
        spread
        for step, spread in enumerate(spreads)
        if step * 10 // 103 == (step * 10 + 9) // 103
    ]
    assert np.mean(inside) < 25  # of 200; a tenth of the rows, sorted
    assert max(inside) < 80


@pytest.mark.parametrize("first", [0, 3, 7])
def test_mixed_batches_have_a_row_of_every_quantile(first):
    num, size = 407, 8
    lengths = make_lengths(num)
    order = mixed_order(lengths, np.random.default_rng(0), batch_size=size, first=first)
    rank = np.argsort(np.argsort(lengths[order], kind="stable"), kind="stable")
    whole = (num - first) // size
    batches = np.sort(rank[first : first + whole * size].reshape(whole, size), axis=1)
    expected = (np.arange(size) + 0.5) * num / size
    assert np.abs(batches - expected).max() < 0.75 * num / size
    totals = lengths[order][first : first + whole * size].reshape(whole, size).sum(1)
    plain = lengths[: whole * size].reshape(whole, size).sum(1)
    assert totals.std() < 0.5 * plain.std()


def test_mixed_batches_are_drawn_anew_and_do_not_ascend():
    lengths = np.sort(make_lengths(400))
    one, other = (
        mixed_order(lengths, np.random.default_rng(seed), batch_size=8)
        for seed in (0, 1)
    )
    together = [set(one[i : i + 8]) for i in range(0, 400, 8)]
    again = [set(other[i : i + 8]) for i in range(0, 400, 8)]
    assert np.mean([max(len(a & b) for b in again) for a in together]) < 4
    within = one.reshape(-1, 8)
    assert (np.diff(within, axis=1) > 0).mean() == pytest.approx(0.5, abs=0.1)
    assert abs(np.corrcoef(one, np.arange(400))[0, 1]) < 0.1
