# SPDX-License-Identifier: Apache-2.0
"""Fields are padded with their own value to their group's length, or refused."""

import numpy as np
import pytest

from jft.data import (
    IGNORED,
    Pad,
)
from jft.data.batches.collate import blank_like, pad_rows
from jft.types import InputError

PADDING = {"ids": Pad(9), "spans": Pad(-1), "targets": Pad(IGNORED, "target")}


def make_rows():
    return [
        {
            "ids": np.arange(n, dtype=np.int32),
            "spans": np.full((n, 2), n, np.int32),
            "targets": np.arange(m, dtype=np.int32),
            "score": np.float32(n / 2),
            "vector": np.full(3, n, np.float32),
        }
        for n, m in [(2, 1), (0, 2), (3, 0)]
    ]


@pytest.mark.parametrize("side", ["right", "left"])
def test_each_field_is_padded_with_its_value_to_the_length_of_its_group(side):
    rows = make_rows()
    lengths = {"input": 4, "target": 2}
    batch = pad_rows(rows, lengths, padding=PADDING, padding_side=side)
    assert list(batch) == list(rows[0])
    for name in PADDING:
        value, group = PADDING[name]
        for row, found in zip(rows, batch[name], strict=True):
            missing = lengths[group] - len(row[name])
            around = (0, missing) if side == "right" else (missing, 0)
            widths = [around, *[(0, 0)] * (row[name].ndim - 1)]
            expected = np.pad(row[name], widths, constant_values=value)
            np.testing.assert_array_equal(found, expected)
        assert batch[name].dtype == np.int32
    np.testing.assert_array_equal(batch["score"], np.float32([1, 0, 1.5]))
    assert batch["score"].dtype == np.float32
    assert batch["vector"].shape == (3, 3)


def test_a_row_that_does_not_fit_is_refused():
    for side in ("right", "left"):
        with pytest.raises(InputError, match=r"3 tokens of 'ids' .* its batch.* has 2"):
            pad_rows(
                make_rows(),
                {"input": 2, "target": 2},
                padding=PADDING,
                padding_side=side,
            )


def test_a_field_without_padding_needs_one_shape():
    rows = [{"words": np.arange(2)}, {"words": np.arange(3)}]
    with pytest.raises(InputError, match=r"cannot form a batch: 'words' has \[\(2,\)"):
        pad_rows(rows, {}, padding={})


def test_a_blank_row_is_padding_alone():
    blank = blank_like(make_rows()[0], PADDING)
    batch = pad_rows([blank], {"input": 2, "target": 3}, padding=PADDING)
    assert batch["ids"].tolist() == [[9, 9]]
    assert batch["spans"].tolist() == [[[-1, -1], [-1, -1]]]
    assert batch["targets"].tolist() == [[IGNORED] * 3]
    assert batch["score"].tolist() == [0]
    assert batch["vector"].tolist() == [[0, 0, 0]]
