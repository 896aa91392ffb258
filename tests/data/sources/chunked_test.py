# SPDX-License-Identifier: Apache-2.0
"""A column that is read in chunks is a sequence like any other."""

import pytest

from jft.data.sources.chunked import CHUNK, ChunkedColumn


@pytest.mark.parametrize("length", [0, 1, CHUNK - 1, CHUNK, 2 * CHUNK + 1])
def test_a_column_is_a_sequence_read_in_chunks(length):
    calls = []

    def read(rows):
        calls.append(len(rows))
        return [f"row {row}" for row in rows]

    column = ChunkedColumn(length, read)
    expected = [f"row {row}" for row in range(length)]
    assert list(column) == expected
    assert max(calls, default=0) <= CHUNK
    assert len(calls) == -(-length // CHUNK)
    assert len(column) == length
    for part in (slice(None), slice(3, 9), slice(-2, None), slice(None, None, -7)):
        assert column[part] == expected[part]
    for index in {0, length - 1, -1} if length else ():
        assert column[index] == expected[index]
    with pytest.raises(IndexError):
        column[length]
