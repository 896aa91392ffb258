# SPDX-License-Identifier: Apache-2.0
"""The lengths chosen hold every batch and cost as little as any choice."""

import itertools

import numpy as np
import pytest

from jft.data.batches.lengths import (
    check_shapes,
    choose_lengths,
    first_holding,
    fit_lengths,
    total_lengths,
)
from jft.data.batches.order import RowOrder
from jft.types import InputError


def cost(shapes, maxima):
    """Tokens of all batches, or None where one does not fit or they do not ascend."""
    for a, b in itertools.pairwise(shapes):
        if any(a[g] > b[g] for g in a):
            return None
    total = 0
    for batch in zip(*maxima.values(), strict=True):
        fitting = [
            sum(shape.values())
            for shape in shapes
            if all(n <= m for n, m in zip(batch, shape.values(), strict=True))
        ]
        if not fitting:
            return None
        total += fitting[0]
    return total


def brute_force(maxima, num_lengths, multiple):
    ranges = [
        range(multiple, int(x.max()) + multiple, multiple) for x in maxima.values()
    ]
    every = [dict(zip(maxima, x, strict=True)) for x in itertools.product(*ranges)]
    costs = [
        cost(chain, maxima)
        for size in range(1, num_lengths + 1)
        for chain in itertools.permutations(every, size)
    ]
    return min(x for x in costs if x is not None)


@pytest.mark.parametrize("num_lengths", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_one_group_costs_as_little_as_any_choice(num_lengths, seed):
    generator = np.random.default_rng(seed)
    maxima = {"input": generator.integers(1, 40, 15)}
    shapes = fit_lengths(maxima, num_lengths=num_lengths, multiple=4)
    assert len(shapes) <= num_lengths
    assert cost(shapes, maxima) == brute_force(maxima, num_lengths, 4)


@pytest.mark.parametrize("num_lengths", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_two_groups_cost_as_little_as_any_choice(num_lengths, seed):
    generator = np.random.default_rng(seed)
    maxima = {
        "input": generator.integers(1, 20, 8),
        "target": generator.integers(1, 16, 8),
    }
    shapes = fit_lengths(maxima, num_lengths=num_lengths, multiple=4)
    assert len(shapes) <= num_lengths
    assert cost(shapes, maxima) == brute_force(maxima, num_lengths, 4)


def test_no_more_lengths_are_chosen_than_help():
    shapes = fit_lengths({"input": np.array([8, 8, 16])}, num_lengths=5)
    assert shapes == ({"input": 8}, {"input": 16})
    shapes = fit_lengths({"input": np.array([3, 5])}, num_lengths=5)
    assert shapes == ({"input": 8},)


def test_lengths_are_rounded_up_but_not_beyond_the_limit():
    maxima = {"input": np.array([3, 77])}
    found = fit_lengths(maxima, num_lengths=2, max_lengths={"input": 77})
    assert found == ({"input": 8}, {"input": 77})
    assert fit_lengths(maxima, num_lengths=2)[-1] == {"input": 80}
    with pytest.raises(InputError, match=r"77 tokens in .*'input'.* 76 of max_"):
        fit_lengths(maxima, num_lengths=2, max_lengths={"input": 76})


def test_many_pairs_of_lengths_are_made_coarser():
    generator = np.random.default_rng(0)
    maxima = {name: generator.integers(1, 2000, 3000) for name in ("input", "target")}
    shapes = fit_lengths(maxima, num_lengths=4)
    assert len(shapes) == 4
    assert cost(shapes, maxima) < cost(shapes[-1:], maxima)
    assert all(n % 64 == 0 for shape in shapes for n in shape.values())


def test_bad_numbers_are_refused():
    for change in ({"num_lengths": 0}, {"multiple": 0}):
        with pytest.raises(InputError, match="of at least 1"):
            fit_lengths({"input": np.array([3])}, **{"num_lengths": 1, **change})


def test_chosen_lengths_hold_every_batch_of_every_epoch_and_save_padding():
    generator = np.random.default_rng(0)
    input_ = np.minimum(generator.geometric(0.03, 1000), 200)
    lengths = {"input": input_, "target": 1 + input_ // 2}
    shapes = choose_lengths(lengths, global_batch_size=16, num_lengths=4)
    assert len(shapes) == 4
    assert shapes[-1] == {"input": 200, "target": 104}
    order = RowOrder(1000, seed=9, batch_size=16, lengths=total_lengths(lengths))
    steps, total = range(3 * 1000 // 16), 0
    for step in steps:
        rows = order.rows(step)
        longest = {g: int(x[rows].max()) for g, x in lengths.items()}
        total += 16 * sum(first_holding(shapes, longest).values())
    assert total < 0.35 * 16 * len(steps) * 304  # all of the last
    # batches of rows that are sorted over the whole epoch
    ends = {g: np.sort(x)[-1::-16] for g, x in lengths.items()}
    best = fit_lengths(ends, num_lengths=4)
    assert total < 1.1 * 3 * 16 * cost(best, ends)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([], "do not fit rows"),
        ([{"inputs": 40}], r"lengths of \['input'\]"),
        ([{"input": 40, "target": 3}], r"lengths of \['input'\]"),
        ([{"input": 40}, {"input": 40}], "do not ascend"),
        ([{"input": 41}, {"input": 40}], "do not ascend"),
        ([{"input": 8}, {"input": 39}], r"longest rows have \{'input': 40\} tokens"),
    ],
)
def test_bad_shapes_are_refused(shapes, message):
    with pytest.raises(InputError, match=message):
        check_shapes(shapes, {"input": np.array([3, 40, 5])})
    pair = [{"input": 4, "target": 9}, {"input": 9, "target": 4}]
    with pytest.raises(InputError, match="do not ascend"):
        check_shapes(pair, {"input": np.array([3]), "target": np.array([3])})
