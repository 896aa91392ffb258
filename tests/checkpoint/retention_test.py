# SPDX-License-Identifier: Apache-2.0
"""The last, the best and every n-th step are kept; NaN is never the best."""

import pytest

from jft.checkpoint.retention import rank, steps_to_keep

NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "keep_last", "keep_every", "keep_best", "best_mode", "expected"),
    [
        ({}, 2, None, 1, "max", []),
        ({1: None, 2: None, 3: None}, 2, None, 1, "max", [2, 3]),
        ({1: 0.9, 2: 0.1, 3: 0.2}, 1, None, 1, "max", [1, 3]),
        ({1: 0.9, 2: 0.1, 3: 0.2}, 1, None, 1, "min", [2, 3]),
        ({1: 0.9, 2: 0.9, 3: 0.2}, 1, None, 1, "max", [1, 3]),
        ({1: NAN, 2: -5.0, 3: NAN}, 1, None, 1, "max", [2, 3]),
        ({1: NAN, 2: NAN, 3: NAN}, 1, None, 2, "min", [3]),
        ({5: None, 10: None, 15: None, 20: None}, 1, 10, 0, "max", [10, 20]),
        ({1: 3.0, 2: 2.0, 3: 1.0, 4: 0.0}, 1, None, 2, "max", [1, 2, 4]),
    ],
)
def test_rules(values, keep_last, keep_every, keep_best, best_mode, expected):
    kept = steps_to_keep(
        values,
        keep_last=keep_last,
        keep_every=keep_every,
        keep_best=keep_best,
        best_mode=best_mode,
    )
    assert sorted(kept) == expected


def test_infinities_rank_and_nan_does_not():
    values = {1: float("inf"), 2: NAN, 3: -float("inf"), 4: 0.0}
    assert rank(values, "max") == [1, 4, 3]
    assert rank(values, "min") == [3, 4, 1]
