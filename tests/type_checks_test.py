# SPDX-License-Identifier: Apache-2.0
"""What the suite's checks of annotations notice."""

import dataclasses

import numpy as np
import pytest
from beartype import beartype
from jaxtyping import Float

from jft import files, train
from tests.type_checks import checked


def test_arguments_and_results_are_checked():
    @checked(typechecker=beartype)
    def halve(x: int) -> int:
        return x / 2

    with pytest.raises(Exception, match="violates type hint"):
        halve("two")
    with pytest.raises(Exception, match="violates type hint"):
        halve(3)


ROW = Float[np.ndarray, "size"]


def test_an_axis_has_one_size_in_a_call():
    @checked(typechecker=beartype)
    def add(x: ROW, y: ROW) -> None:
        del x, y

    add(np.ones(2), np.ones(2))
    add(np.ones(3), np.ones(3))
    with pytest.raises(TypeError, match="Type-check error"):
        add(np.ones(2), np.ones(3))


def test_fields_are_checked():
    @checked(typechecker=beartype)
    @dataclasses.dataclass(frozen=True)
    class Pair:
        one: int
        other: tuple[str, ...] = ()

    assert Pair(1, ("a",)).other == ("a",)
    with pytest.raises(Exception, match="violates type hint"):
        Pair("one")


@pytest.mark.parametrize(
    "call",
    [
        lambda folder: files.write_text(folder / "a", 3),
        lambda folder: train.softmax_cross_entropy(np.ones((2, 3)), "ab"),
    ],
    ids=["plain", "of axes"],
)
def test_calls_of_jft_are_checked(call, tmp_path):
    with pytest.raises(Exception, match=r"violates type hint|Type-check error"):
        call(tmp_path)
