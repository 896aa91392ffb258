# SPDX-License-Identifier: Apache-2.0
"""Every kind of damage, done to every file of a step."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from jft.checkpoint import CheckpointError, Checkpoints, CorruptError, Manifest, sums


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return tmp_path_factory.mktemp("pristine")


@pytest.fixture
def saved(pristine, tmp_path, example):
    """Two steps, 1 and 2, of which the tests damage the second."""
    if not any(pristine.iterdir()):
        with Checkpoints(pristine) as checkpoints:
            example.save(checkpoints, 1)
            example.save(checkpoints, 2)
    return Checkpoints(shutil.copytree(pristine, tmp_path / "c"))


def files_of(saved):
    folder = saved.directory / "00000002"
    return sorted(p for p in folder.rglob("*") if p.is_file())


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def append(path):
    path.write_bytes(path.read_bytes() + b"\n")


def link(path):
    path.rename(path.parent.parent / "moved")
    path.symlink_to(path.parent.parent / "moved")


def replace_by_pipe(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "damage", [flip_a_bit, truncate, append, link, replace_by_pipe, Path.unlink]
)
def test_damage_to_any_file_is_found(saved, example, damage):
    state = example.abstract(example.make_state())
    files = files_of(saved)
    assert len(files) >= 9  # arrays, their metadata and marker, manifest, run, sums
    backup = saved.directory.parent / "backup"
    shutil.copytree(saved.directory, backup)
    for path in files:
        if path.stat().st_size == 0 and damage in (flip_a_bit, truncate):
            continue  # Orbax's empty marker
        damage(path)
        sums_gone = damage is Path.unlink and path.name == sums.SUMS_FILE
        with pytest.raises(CheckpointError if sums_gone else CorruptError):
            saved.restore(2, state, expect=example.manifest)
        back = saved.restore_latest(
            state, expect=example.manifest, on_corrupt="fall_back"
        )
        assert back.manifest.step == 1
        example.assert_bitwise(back.arrays, example.make_state(1))
        if not sums_gone:  # without sums the step counts as never finished
            assert "step 2 was passed over" in back.skipped[0]
            with pytest.raises(CorruptError):
                saved.restore_latest(state, expect=example.manifest)
        shutil.rmtree(saved.directory)
        shutil.copytree(backup, saved.directory)
    assert saved.restore(2, state, expect=example.manifest).manifest.step == 2


def test_the_damaged_file_is_named(saved, example):
    state = example.abstract(example.make_state())
    flip_a_bit(saved.directory / "00000002" / "run.json")
    (saved.directory / "00000002" / "arrays" / "commit_success.txt").unlink()
    (saved.directory / "00000002" / "left.over").touch()
    with pytest.raises(
        CheckpointError,
        match=r"changed \['run.json'\], missing \['arrays/commit_success.txt'\], "
        r"extra \['left.over'\]",
    ):
        saved.restore(2, state, expect=example.manifest)


def test_a_linked_folder_is_refused(saved, example):
    folder = saved.directory / "00000002"
    folder.rename(saved.directory.parent / "outside")
    folder.symlink_to(saved.directory.parent / "outside")
    with pytest.raises(CheckpointError, match="symbolic link"):
        saved.restore(2, example.make_state(), expect=example.manifest)


def test_a_renamed_folder_is_refused(saved, example):
    shutil.copytree(saved.directory / "00000001", saved.directory / "00000003")
    with pytest.raises(CheckpointError, match="was renamed: it holds step 1"):
        saved.restore(3, example.make_state(), expect=example.manifest)


def test_leaves_are_checked_apart_from_files(saved, example):
    """Arrays of another step under sums that were made to fit: the leaf is named."""
    folder = saved.directory / "00000002"
    shutil.rmtree(folder / "arrays")
    shutil.copytree(saved.directory / "00000001" / "arrays", folder / "arrays")
    sums.seal(folder)
    state = example.make_state()
    with pytest.raises(CorruptError, match=r"leaf \S+ .*is not what was saved"):
        saved.restore(2, state, expect=example.manifest)
    back = saved.restore_latest(state, expect=example.manifest, on_corrupt="fall_back")
    assert back.manifest.step == 1


def test_another_schema_is_refused(saved, example):
    path = saved.directory / "00000002" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 99}))
    sums.seal(path.parent)
    with pytest.raises(CheckpointError, match="schema version 99, this jft reads 2"):
        saved.restore_latest(
            example.make_state(), expect=example.manifest, on_corrupt="fall_back"
        )


@pytest.mark.parametrize(
    "text", ["", "[]", "3", '{"schema_version": 2}', '{"leaves": 1}']
)
def test_what_is_no_manifest_is_refused(text):
    with pytest.raises(CorruptError, match="no manifest"):
        Manifest.from_json(text)


def test_the_system_tool_reads_the_sums(saved):
    if shutil.which("sha256sum") is None:
        pytest.skip("sha256sum is not installed")
    folder = saved.directory / "00000002"
    command = ["sha256sum", "--check", "--strict", "--quiet", sums.SUMS_FILE]
    assert subprocess.run(command, cwd=folder, check=False).returncode == 0
