# SPDX-License-Identifier: Apache-2.0
import os

import pytest

from jft.files import write_text


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
