# SPDX-License-Identifier: Apache-2.0
"""Rows written in any order come back unpadded; a folder appears only when whole."""

import errno
import os

import ml_dtypes
import numpy as np
import pytest

from jft.data import Pad, RowFiller, open_rows
from jft.types import InputError

LENGTHS = np.array([3, 1, 0, 4, 2])
PADDING = {"ids": Pad(7), "hidden@2": Pad(0)}


def make_batch(index, *, length=5, left=False, dtype=np.float32):
    """Rows that can be told apart, padded with what must not be kept."""
    ids = np.full((len(index), length), 99, np.int32)
    hidden = np.full((len(index), length, 2), 99, dtype)
    for place, row in enumerate(index):
        if row >= 0:
            size = LENGTHS[row]
            part = slice(length - size, None) if left else slice(size)
            ids[place, part] = 10 * row + np.arange(size)
            hidden[place, part] = ids[place, part, None] + np.array([0, 0.5])
    targets = np.where(np.array(index) < 0, 99, index).astype(np.int32)
    vector = np.repeat(targets[:, None].astype(np.float32), 3, axis=1)
    return {"ids": ids, "hidden@2": hidden, "targets": targets, "vector": vector}


def fill(folder, *indices, left=False, dtype=np.float32):
    filler = RowFiller(
        folder,
        lengths={"input": LENGTHS},
        padding=PADDING,
        padding_side="left" if left else "right",
        columns={"@example": np.arange(5)},
    )
    for number, index in enumerate(indices):
        batch = make_batch(index, length=5 + number, left=left, dtype=dtype)
        filler.write(np.array(index), batch)
    return filler.finish()


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_rows_come_back_without_padding_in_any_order(tmp_path, left, dtype):
    fill(tmp_path / "kept", [3, 0], [4, 2, 1, -1], left=left, dtype=dtype)
    rows = open_rows(tmp_path / "kept")
    assert len(rows) == 5
    np.testing.assert_array_equal(rows.values("@input"), LENGTHS)
    np.testing.assert_array_equal(rows.values("@example"), np.arange(5))
    for i, size in enumerate(LENGTHS):
        row = rows.row(i, ["ids", "hidden@2", "targets", "vector"])
        np.testing.assert_array_equal(row["ids"], 10 * i + np.arange(size))
        assert row["hidden@2"].dtype == dtype
        expected = row["ids"][:, None] + np.array([0, 0.5])
        np.testing.assert_array_equal(row["hidden@2"].astype(float), expected)
        assert row["targets"] == i
        np.testing.assert_array_equal(row["vector"], [i] * 3)


def test_nothing_is_in_its_place_before_it_is_whole(tmp_path):
    folder = tmp_path / "kept"
    filler = RowFiller(folder, lengths={"input": LENGTHS}, padding=PADDING)
    filler.write(np.array([3, 0]), make_batch([3, 0]))
    assert open_rows(folder) is None
    assert not folder.exists()
    filler.discard()
    assert not list(tmp_path.iterdir())


def test_a_row_that_was_never_written_is_named(tmp_path):
    """Its place in the files is zeros, which look like any other row."""
    with pytest.raises(InputError, match=r"2 of 5 rows .* \[1, 4\]"):
        fill(tmp_path / "kept", [3, 0], [2, -1])
    assert open_rows(tmp_path / "kept") is None


def test_what_was_there_is_replaced(tmp_path):
    first = fill(tmp_path / "kept", [0, 1, 2, 3, 4]).values("ids").copy()
    (tmp_path / "kept" / "ids.values").write_bytes(b"damaged")
    assert open_rows(tmp_path / "kept") is None
    again = fill(tmp_path / "kept", [4, 3, 2], [1, 0])
    np.testing.assert_array_equal(again.values("ids"), first)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_full_disk_is_an_error_before_anything_is_computed(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    filler = RowFiller(tmp_path / "kept", lengths={"input": LENGTHS}, padding=PADDING)
    with pytest.raises(InputError, match="No space left on device"):
        filler.write(np.array([0]), make_batch([0]))
