# SPDX-License-Identifier: Apache-2.0
"""A script starts itself once more for huge pages, and only where that helps."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import huge_pages

SCRIPT = ("python", "-m", "experiments.finetune", "--workdir=runs/a b")


@pytest.fixture
def started(monkeypatch):
    calls = []
    monkeypatch.setattr(os, "execve", lambda *args: calls.append(args))
    return calls


@pytest.fixture
def asked(tmp_path):
    mode = tmp_path / "enabled"
    mode.write_text("always [madvise] never\n")
    return mode


def test_starts_the_same_command_with_the_setting(started, asked):
    huge_pages.restart(SCRIPT, {"A": "1", "GLIBC_TUNABLES": "glibc.x=2"}, asked)
    tunables = "glibc.x=2:glibc.malloc.hugetlb=1"
    environment = {"A": "1", "GLIBC_TUNABLES": tunables}
    assert started == [(sys.executable, list(SCRIPT), environment)]
    huge_pages.restart(SCRIPT, environment, asked)  # once is enough
    assert len(started) == 1


@pytest.mark.parametrize(
    "command",
    [
        ("python",),
        ("python", "-c", "import experiments"),
        ("python", "-m", "pytest", "tests/experiments"),
        ("/usr/bin/pytest", "-n", "2"),
    ],
)
def test_leaves_other_processes_alone(command, started, asked):
    huge_pages.restart(command, {}, asked)
    assert not started


def test_leaves_alone_what_cannot_be_helped(started, tmp_path):
    for words in ("[always] madvise never", "always madvise [never]"):
        (tmp_path / "enabled").write_text(words)
        huge_pages.restart(SCRIPT, {}, tmp_path / "enabled")
    huge_pages.restart(SCRIPT, {}, tmp_path / "absent")
    assert not started


@pytest.mark.skipif(
    not huge_pages._given_if_asked(huge_pages.MODE),
    reason="Linux gives huge pages to all processes here, or to none",
)
def test_a_script_runs_as_before():
    """Its words and its status come from the second start."""
    kept = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    results = [
        subprocess.run(
            [sys.executable, "-m", "experiments.export", "--to=x"],
            env={**kept, **more},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
        )
        for more in ({}, {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"})
    ]
    assert {done.returncode for done in results} == {2}
    assert results[0].stderr == results[1].stderr
    assert "--workdir" in results[0].stderr
