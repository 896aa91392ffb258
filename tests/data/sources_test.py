# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from jft.data import ArraySource
from jft.types import InputError


def test_array_source_repr_follows_the_content():
    def source(pixel):
        fields = {"image": np.full((2, 1, 1, 1), pixel), "targets": np.array([0, 1])}
        return ArraySource(fields, class_names=("a", "b"))

    assert repr(source(1)) == repr(source(1)) != repr(source(2))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": np.zeros(2)}, "needs the field 'targets'"),
        ({"image": np.zeros(2), "targets": np.zeros(3, int)}, "one length"),
        ({"targets": np.zeros(0, int)}, "at least one example"),
        ({"targets": np.array([0, 1, 2])}, "example 2 has target 2, outside the 2"),
        ({"targets": np.array([0, -1])}, "example 1 has target -1"),
        ({"targets": np.array([0.0, 1.0])}, "whole numbers"),
        ({"targets": np.zeros((2, 2), int)}, "whole numbers"),
    ],
)
def test_array_source_refuses(fields, message):
    with pytest.raises(InputError, match=message):
        ArraySource(fields, class_names=("a", "b"))
