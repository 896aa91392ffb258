# SPDX-License-Identifier: Apache-2.0
"""A file is replaced whole or stays; the cache is where the environment says."""

import os
from pathlib import Path

import pytest

from jft.files import cache_folder, write_text


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "a.json"
    write_text(path, "old and long")
    write_text(path, "new")
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_text(path, "old")

    def fail(descriptor):
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        write_text(path, "new")
    assert path.read_text() == "old"


def test_the_cache_is_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("JFT_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("JFT_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "jft"
