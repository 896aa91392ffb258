# SPDX-License-Identifier: Apache-2.0
"""Steps, epochs, examples and percent give the number of steps counted by hand."""

import math

import pytest

from jft.config import Duration, to_steps
from jft.config.durations import take_duration
from jft.types import InputError


@pytest.mark.parametrize(
    ("amount", "unit", "steps"),
    [
        (7, "steps", 7),
        (0, "steps", 0),
        (2, "epochs", 7),  # 2 x 3.125 = 6.25, rounded up
        (0.01, "epochs", 1),  # something asked for is never nothing
        (33, "examples", 2),
        (32, "examples", 1),
        (10, "percent", 3),
        (5, "percent", 2),
        (100, "percent", 30),
    ],
)
def test_each_unit_gives_the_hand_computed_steps(amount, unit, steps):
    duration = Duration(amount=amount, unit=unit)
    found = to_steps(
        duration, steps_per_epoch=3.125, examples_per_step=32, num_steps=30
    )
    assert found == steps
    assert isinstance(found, int)


def test_rounding_noise_adds_no_step():
    half = Duration(amount=50, unit="percent")
    assert 50 * (110 / 100) > 55  # what floating point makes of it
    assert to_steps(half, steps_per_epoch=1, examples_per_step=1, num_steps=110) == 55


def test_a_run_cannot_be_a_percentage_of_itself():
    with pytest.raises(InputError, match="percent of the run's own length"):
        to_steps(
            Duration(amount=5, unit="percent"), steps_per_epoch=1, examples_per_step=1
        )


def test_none_counts_as_not_given():
    values = {"num_steps": None, "num_epochs": 2.5, "number_steps": 9}
    assert take_duration("num", values) == Duration(amount=2.5, unit="epochs")
    assert take_duration("keep", values, required=False) is None


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "train.num_.* exactly one of num_steps, .* given: none"),
        (
            {"num_steps": 1, "num_epochs": 2},
            "given: num_steps=1, num_epochs=2. Set one",
        ),
        ({"num_steps": -1}, "train.num_steps is -1; expected a whole number of 0"),
        ({"num_steps": 1.5}, "train.num_steps is 1.5 .*a whole number"),
        ({"num_steps": True}, "train.num_steps is True .*a whole number"),
        ({"num_epochs": "3"}, "train.num_epochs is '3' .str.; expected a number"),
        ({"num_percent": math.nan}, "train.num_percent is nan; expected a number"),
        ({"num_epochs": math.inf}, "train.num_epochs is inf; expected a number"),
    ],
)
def test_faults_are_named(values, sentence):
    with pytest.raises(InputError, match=sentence):
        take_duration("train.num", values)
