# SPDX-License-Identifier: Apache-2.0
"""A .gz file is unpacked once; a damaged one leaves nothing behind."""

import gzip
import os

import pytest

from jft.data.sources.cache import unpack_gzip
from jft.files import cache_folder
from jft.types import InputError


@pytest.fixture
def packed(tmp_path, monkeypatch):
    monkeypatch.setenv("JFT_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "a.txt.gz"
    file.write_bytes(gzip.compress(b"so good\n" * 1000, mtime=0))
    return file


def test_a_file_is_unpacked_once(packed):
    unpacked = unpack_gzip(packed)
    assert unpacked.read_bytes() == b"so good\n" * 1000
    assert unpacked.is_relative_to(cache_folder())
    os.utime(unpacked, ns=(5, 5))
    copy = packed.with_name("copy.gz")
    copy.write_bytes(packed.read_bytes())
    assert unpack_gzip(copy) == unpacked
    assert unpacked.stat().st_mtime_ns == 5  # found, not written again
    packed.write_bytes(gzip.compress(b"so bad\n"))
    assert unpack_gzip(packed).read_bytes() == b"so bad\n"


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"so good\n" * 1000,
        lambda data: data[:20] + bytes([data[20] ^ 255]) + data[21:],
        lambda data: data[:-8] + bytes(4) + data[-4:],
    ],
    ids=["cut", "not gzip", "flipped", "checksum"],
)
def test_damaged_files_leave_nothing_behind(damage, packed):
    packed.write_bytes(damage(packed.read_bytes()))
    with pytest.raises(InputError, match=r"a\.txt\.gz is no whole gzip file"):
        unpack_gzip(packed)
    assert not list((cache_folder() / "unpacked").iterdir())


def test_a_cache_that_cannot_be_written_is_named(packed, monkeypatch):
    monkeypatch.setenv("JFT_CACHE", str(packed))  # a file, no folder
    with pytest.raises(InputError, match="Set JFT_CACHE to a folder"):
        unpack_gzip(packed)
