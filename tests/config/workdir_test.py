# SPDX-License-Identifier: Apache-2.0
"""A workdir is one config's and one run's at a time; the same config resumes it."""

import os
import subprocess
import sys
import time

import jax
import pytest

from configs import common
from jft import processes
from jft.config import open_workdir, read_config, resolve, to_json
from jft.config import workdir as workdir_module
from jft.types import InputError


def make_config(**changes):
    config = common.base_config()
    for dotted, value in changes.items():
        section, _, name = dotted.rpartition("__")
        (config[section] if section else config)[name] = value
    return resolve(config)


CONFIG = make_config()


def open_it(path, config=CONFIG):
    return open_workdir(path, config_name="digits", config=config)


def test_default_folders_are_never_reused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda _: "t")
    made = [open_it(None) for _ in range(3)]
    assert [str(w.path) for w in made] == [
        f"runs/digits/t{s}" for s in ("", "-2", "-3")
    ]
    assert not any(w.resumed for w in made)
    for workdir in made:
        workdir.close()


def test_the_same_config_resumes_and_another_is_refused(tmp_path):
    folder = tmp_path / "deep" / "run"
    with open_it(folder) as workdir:
        assert not workdir.resumed
        (folder / "checkpoints").mkdir()
    assert read_config(folder) == CONFIG
    with open_it(folder) as workdir:
        assert workdir.resumed
    other = make_config(seed=1, optim__clip_norm=None)
    with pytest.raises(InputError) as caught:
        open_it(folder, other)
    assert "seed: 0 there, 1 here" in str(caught.value)
    assert "optim.clip_norm: 1.0 there, None here" in str(caught.value)
    assert read_config(folder) == CONFIG
    with open_it(folder):  # the refusal released the lock
        pass


def test_what_cannot_change_the_result_may_change_on_resume(tmp_path):
    open_it(tmp_path).close()
    (tmp_path / "checkpoints").mkdir()
    other = make_config(data__num_workers=2, checkpoint__on_corrupt="fall_back")
    with open_it(tmp_path, other) as workdir:
        assert workdir.resumed
        assert read_config(tmp_path) == other


def test_a_config_that_began_nothing_claims_nothing(tmp_path):
    open_it(tmp_path).close()
    other = make_config(seed=1)
    with open_it(tmp_path, other) as workdir:
        assert not workdir.resumed
    assert read_config(tmp_path) == other


def test_a_folder_that_died_before_its_config_is_fresh(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".config.json.partial").write_text("{")
    with open_it(tmp_path) as workdir:
        assert not workdir.resumed
    assert sorted(os.listdir(tmp_path)) == [".lock", "config.json"]


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis").touch()
    with pytest.raises(InputError, match="holds thesis, so it is not a run's"):
        open_it(tmp_path)
    with pytest.raises(InputError, match="is no workdir of jft"):
        read_config(tmp_path)


@pytest.mark.parametrize("text", [to_json(CONFIG)[:50], "{}", "\x00"])
def test_a_damaged_config_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match="is no config of this version of jft"):
        open_it(tmp_path)


def test_two_runs_never_share_a_folder(tmp_path):
    with open_it(tmp_path), pytest.raises(InputError, match="in use by another"):
        open_it(tmp_path)
    open_it(tmp_path).close()


def test_a_killed_process_leaves_no_lock(tmp_path):
    code = (
        "import fcntl, sys, time\n"
        f"stream = open({str(tmp_path / '.lock')!r}, 'a')\n"
        "fcntl.flock(stream, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match="in use by another process"):
            open_it(tmp_path)
        child.kill()
    open_it(tmp_path).close()


def test_a_spawned_worker_does_not_inherit_the_lock(tmp_path):
    with open_it(tmp_path) as workdir:
        assert not os.get_inheritable(workdir.lock.fileno())


@pytest.mark.parametrize("name", ["file", "file/below", "/proc/nothing"])
def test_an_unwritable_folder_is_refused(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        open_it(tmp_path / name)


def test_a_folder_that_not_all_processes_see_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes, "from_main", lambda fn: fn())
    seen = []

    def gather(mine):
        seen.append(mine[1])
        return [mine, ("node7", False)]

    monkeypatch.setattr(processes, "gather", gather)
    with pytest.raises(InputError, match=r"is not shared: process 1 on node7 \(1 of 2"):
        open_workdir(tmp_path, config_name="x", config=make_config())
    assert seen == [True]


def test_what_is_not_there_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(workdir_module, "SHARED_SECONDS", 0.3)
    assert not workdir_module._sees(tmp_path / ".lock", "token")
    (tmp_path / ".lock").write_text("token")
    assert workdir_module._sees(tmp_path / ".lock", "token")
    assert not workdir_module._sees(tmp_path / ".lock", "another")
