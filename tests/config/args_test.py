# SPDX-License-Identifier: Apache-2.0
"""A config's argument takes the type of its default; any other is refused."""

import pytest

from jft.config import parse_arg
from jft.types import InputError

CHOICES = ("staged", "full")


def parse(arg):
    return vars(parse_arg(arg, recipe=CHOICES, batch=32, rate=0.5, name="a"))


DEFAULTS = {
    "quicktest": False,
    "recipe": "staged",
    "batch": 32,
    "rate": 0.5,
    "name": "a",
}


@pytest.mark.parametrize(
    ("arg", "changed"),
    [
        (None, {}),
        ("", {}),
        ("quicktest", {"quicktest": True}),
        ("quicktest=False", {}),
        ("recipe=full, batch=8", {"recipe": "full", "batch": 8}),
        ("rate=1e-3,name=b=c", {"rate": 1e-3, "name": "b=c"}),
    ],
)
def test_values_take_the_type_of_their_default(arg, changed):
    assert parse(arg) == DEFAULTS | changed


@pytest.mark.parametrize(
    ("arg", "sentence"),
    [
        ("recpie=full", "no argument 'recpie'; known: quicktest, recipe, batch"),
        ("=full", "no argument ''"),
        ("recipe=fast", "recipe is 'fast'; expected one of staged, full"),
        ("batch=many", "batch is 'many'; expected a value of type int"),
        ("batch", "batch is 'True'; expected a value of type int"),
        ("quicktest=1", "quicktest is '1'; expected True or False"),
    ],
)
def test_leftovers_and_bad_values_are_refused(arg, sentence):
    with pytest.raises(InputError, match=sentence):
        parse(arg)
