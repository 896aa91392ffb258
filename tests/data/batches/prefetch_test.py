# SPDX-License-Identifier: Apache-2.0
"""Prefetching stays ahead by its size and closes what it reads from."""

import itertools

import pytest

from jft.data import prefetch_to_device
from jft.types import InputError


def test_prefetch_stays_ahead_by_its_size():
    pulled = []

    def batches():
        for i in range(5):
            pulled.append(i)
            yield {"x": i}

    stream = prefetch_to_device(batches(), lambda batch: batch["x"], size=2)
    assert not pulled
    assert next(stream) == 0
    assert pulled == [0, 1]
    assert next(stream) == 1
    assert pulled == [0, 1, 2]
    assert list(stream) == [2, 3, 4]
    assert stream.wait_seconds > 0
    with pytest.raises(InputError, match="at least 1"):
        prefetch_to_device([], lambda batch: batch, size=0)


def test_closing_a_prefetch_closes_its_batches():
    closed = []

    def batches():
        try:
            yield from itertools.count()
        finally:
            closed.append(True)

    stream = prefetch_to_device(batches(), lambda batch: batch)
    assert next(stream) == 0
    stream.close()
    assert closed
    assert list(stream) == []
