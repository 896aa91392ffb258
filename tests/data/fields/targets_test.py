# SPDX-License-Identifier: Apache-2.0
"""Targets become arrays of the right type; one that no class has is refused."""

import numpy as np
import pytest

from jft.data.fields.targets import example_name, target_fields
from jft.types import InputError


@pytest.mark.parametrize(
    ("targets", "num_classes", "dtype"),
    [
        (3, 4, np.int32),
        (np.int64(3), None, np.int32),
        (np.int32(0), 1, np.int32),
        (0.25, 1, np.float32),
        (np.float32(0.25), 4, np.float32),
        (np.array([0, 1, 1], np.float32), 3, np.float32),
    ],
)
def test_targets_of_every_kind_are_arrays(targets, num_classes, dtype):
    fields = target_fields({"targets": targets, "index": 7}, num_classes=num_classes)
    assert fields["targets"].dtype == dtype
    np.testing.assert_array_equal(fields["targets"], np.asarray(targets, dtype))
    assert fields["index"].dtype == np.int32
    assert fields["index"] == 7


def test_absent_targets_and_positions_stay_absent():
    assert target_fields({"text": "a"}, num_classes=2) == {}


@pytest.mark.parametrize(
    ("targets", "num_classes", "message"),
    [
        (4, 4, "a.csv, line 3 has target 4, outside the 4 classes"),
        (-1, None, "has target -1"),
        (np.zeros(2, np.float32), 3, "has 0 or 1 for 2 classes, but the model has 3"),
    ],
)
def test_other_classes_than_the_models_are_refused(targets, num_classes, message):
    with pytest.raises(InputError, match=message):
        target_fields(
            {"targets": targets, "id": "a.csv, line 3"}, num_classes=num_classes
        )


def test_an_example_is_named_by_its_id_first():
    assert example_name({"id": "a.csv, line 3", "index": 7}) == "a.csv, line 3"
    assert example_name({"index": 7}) == 7
    assert example_name({}) == "without id"
