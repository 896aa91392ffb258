# SPDX-License-Identifier: Apache-2.0
"""Whole runs in two processes, each with half of the devices, the rows and the state.

They end as a run of one process does, and a stop or a fault of one is that of both.
"""

import contextlib
import json
import os
import select
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import jft
from experiments import finetune, writing
from jft import data, processes
from tests.experiments.resume_test import (
    MODEL,
    PROCESSOR,
    ROOT,
    STEP,
    WORKER,
    Ended,
    assert_same_end,
    steps_saved,
    strike,
)

CONFIG = Path(__file__).with_name("processes_config.py")
COUNT = 2
SECONDS = 200  # that no run may take
INTERRUPTED = 75
SLURM_PORTS = 2**16 - 2**12


def free_port() -> int:
    """A port that jax could choose under SLURM."""
    for port in range(SLURM_PORTS + os.getpid() % 4000, SLURM_PORTS + 4096):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def explicit_flags(port: int, index: int) -> list[str]:
    return [
        f"--coordinator=127.0.0.1:{port}",
        f"--num_processes={COUNT}",
        f"--process_id={index}",
    ]


def slurm_environment(port: int, index: int) -> dict[str, str]:
    """What srun tells each task; jax makes a port of the job's number."""
    return {
        "SLURM_JOB_ID": str(port - SLURM_PORTS),
        "SLURM_STEP_NODELIST": "127.0.0.1",
        "SLURM_NTASKS": str(COUNT),
        "SLURM_PROCID": str(index),
        "SLURM_LOCALID": str(index),
    }


class Fleet:
    """Starts each run in two workers, which have one device each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = folder / "base"
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_NUM_CPU_DEVICES": "1",
            "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        self._workers = [
            subprocess.Popen(
                [sys.executable, "-W", "ignore", str(WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                cwd=ROOT,
                env=env,
            )
            for _ in range(COUNT)
        ]
        for worker in self._workers:
            assert worker.stdout.readline() == b"ready\n"

    def argv(self, workdir: Path, *more: str) -> list[str]:
        """The command line of a run; what is given in ``more`` wins."""
        pretrained = f"--config.model.pretrained={self.base}"
        return [f"--config={CONFIG}", f"--workdir={workdir}", pretrained, *more]

    def run(
        self,
        argv: list[str],
        *,
        script: str = "finetune",
        more: dict[int, str] | None = None,
        strikes: dict[int, dict[str, Any]] | None = None,
        by_slurm: bool = False,
    ) -> list[Ended]:
        """Run to the end; ``more`` and ``strikes`` are for the processes they name."""
        port = free_port()
        logs = [self.folder / f"log{index}.txt" for index in range(COUNT)]
        for index, worker in enumerate(self._workers):
            logs[index].write_text("")
            own = [more[index]] if more and index in more else []
            place = [] if by_slurm else explicit_flags(port, index)
            command = {
                "script": script,
                "argv": [*argv, "--distributed", *place, *own],
                "env": slurm_environment(port, index) if by_slurm else {},
                "log": str(logs[index]),
                "strike": (strikes or {}).get(index),
                "drawn": False,
            }
            worker.stdin.write(json.dumps(command).encode() + b"\n")
        started = [int(worker.stdout.readline()) for worker in self._workers]
        ends = []
        for index, worker in enumerate(self._workers):
            if not select.select([worker.stdout], [], [], SECONDS)[0]:
                os.kill(started[index], 9)  # not reaped yet, so it is the right one
            ends.append(Ended(int(worker.stdout.readline()), logs[index].read_text()))
        return ends

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.stdin.close()
            worker.stdout.close()
            worker.wait()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    fleet = Fleet(tmp_path_factory.mktemp("processes"))
    letters = data.load_source("letters", None, num_per_class=1, seed=1)
    # few programs to compile, and enough weights in a leaf to be shared out
    sizes = {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 128}
    model = jft.init_model(
        {**MODEL, **sizes},
        key=jax.random.key(0),
        class_names=sorted(set(letters.column("targets"))),
        processor=PROCESSOR,
    )
    jft.save(fleet.base, model)
    yield fleet
    fleet.close()


@pytest.fixture(scope="module")
def alone(fleet, call) -> Path:
    """The workdir of a run of one process. Only read it."""
    workdir = fleet.folder / "alone"
    ended = call(finetune, *fleet.argv(workdir))
    assert ended.status == 0, ended.err
    return workdir


class Shared:
    """A finished run of two processes. Only read its workdir."""

    def __init__(self, workdir: Path, ends: list[Ended]) -> None:
        self.workdir = workdir
        self.logs = [end.log for end in ends]


@pytest.fixture(scope="module")
def shared(fleet) -> Shared:
    workdir = fleet.folder / "shared"
    ends = fleet.run(fleet.argv(workdir))
    assert [end.status for end in ends] == [0, 0], ends
    return Shared(workdir, ends)


def records_of(workdir: Path) -> list[dict[str, Any]]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def assert_like(workdir: Path, other: Path) -> None:
    """The same records, weights and scores, to 1e-6."""
    pairs = list(zip(records_of(workdir), records_of(other), strict=True))
    assert {record["split"] for record, _ in pairs} == {"train", "validation", "source"}
    for one, two in pairs:
        assert one.keys() == two.keys()
        assert (one["step"], one["split"]) == (two["step"], two["split"])
        np.testing.assert_allclose(one["loss"], two["loss"], rtol=1e-6)
        assert one["accuracy"] == two["accuracy"]
    weights, others = (
        load_file(x / "export" / "model.safetensors") for x in (workdir, other)
    )
    assert weights.keys() == others.keys()
    for name, array in weights.items():
        if name.endswith("attention.key.bias"):  # its gradient is rounding noise
            continue
        np.testing.assert_allclose(array, others[name], rtol=1e-5, atol=1e-6)
    one, two = (json.loads((x / "summary.json").read_text()) for x in (workdir, other))
    assert one["test"]["examples"] == two["test"]["examples"] == 40
    for name in ("test", "best", "forgetting"):
        numbers = {k: v for k, v in one[name].items() if not isinstance(v, str)}
        assert numbers == pytest.approx({k: two[name][k] for k in numbers}, rel=1e-6)


def test_two_processes_end_as_one_does(shared, alone):
    assert_like(shared.workdir, alone)
    files = [{p.name for p in x.iterdir()} for x in (shared.workdir, alone)]
    assert files[0] == files[1]


def test_the_main_process_alone_prints(shared):
    assert "test accuracy" in shared.logs[0]
    assert "examples/s" in shared.logs[0]
    told = [line for line in shared.logs[1].splitlines() if "[Gloo]" not in line]
    assert told == []


def back_to(step: int, workdir: Path, copy: Path) -> None:
    """A copy of a run's folder as it was after a step."""
    shutil.copytree(workdir, copy)
    for name in ("summary.json", "export", "plots"):
        path = copy / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for later in steps_saved(copy):
        if later > step:
            shutil.rmtree(copy / "checkpoints" / f"{later:08d}")
    assert steps_saved(copy)[-1] == step


def test_one_process_goes_on_where_two_stopped(shared, alone, fleet, call):
    workdir = fleet.folder / "two, then one"
    back_to(3, shared.workdir, workdir)
    ended = call(finetune, *fleet.argv(workdir))
    assert ended.status == 0, ended.err
    assert "going on from step 3" in ended.out
    assert_like(workdir, alone)


def test_two_processes_go_on_where_one_stopped(shared, alone, fleet):
    workdir = fleet.folder / "one, then two"
    back_to(3, alone, workdir)
    ends = fleet.run(fleet.argv(workdir))
    assert [end.status for end in ends] == [0, 0], ends
    assert "going on from step 3" in ends[0].log
    assert_like(workdir, shared.workdir)


def test_a_stop_of_one_stops_both_and_a_kill_changes_nothing(shared, fleet):
    workdir = fleet.folder / "stopped"
    ends = fleet.run(fleet.argv(workdir), strikes={1: strike(STEP, 2, "SIGTERM")})
    assert [end.status for end in ends] == [INTERRUPTED] * 2, ends
    saved = steps_saved(workdir)[-1]
    assert 2 <= saved <= 3
    for end in ends:
        assert f"interrupted: saved step {saved} of 6" in end.log
    kill = strike(STEP, 2, "SIGKILL")
    ends = fleet.run(fleet.argv(workdir), strikes={0: kill, 1: kill})
    assert [end.status for end in ends] == [-9, -9], ends
    ends = fleet.run(fleet.argv(workdir))
    assert [end.status for end in ends] == [0, 0], ends
    assert_same_end(workdir, shared.workdir)


def test_activations_are_kept_once_for_both(fleet, call):
    flags = [
        "--config.data.augment=None",
        "--config.train.frozen_dropout=False",
        "--config.train.cache.use=on",
    ]
    workdir, other = (fleet.folder / f"kept by {name}" for name in ("two", "one"))
    ends = fleet.run(fleet.argv(workdir, *flags))
    assert [end.status for end in ends] == [0, 0], ends
    ended = call(finetune, *fleet.argv(other, *flags))
    assert ended.status == 0, ended.err
    assert_like(workdir, other)
    kept, expected = (
        json.loads((x / "summary.json").read_text())["cache"] for x in (workdir, other)
    )
    for name in ("use", "rows_read", "rows_computed", "bytes"):
        assert kept[name] == expected[name], name
    assert kept["use"] == "on"
    assert not (workdir / "activations").exists()


def test_evaluate_counts_every_example_once(shared, fleet):
    argv = [f"--workdir={shared.workdir}"]
    ends = fleet.run(argv, script="evaluate", by_slurm=True)
    assert [end.status for end in ends] == [0, 0], ends
    rows = [line.split() for line in ends[0].log.splitlines()]
    told = {row[0]: row[1] for row in rows if len(row) == 2}
    test = json.loads((shared.workdir / "summary.json").read_text())["test"]
    assert int(told["examples"]) == test["examples"]
    assert float(told["loss"]) == pytest.approx(test["loss"], abs=1e-3)
    assert float(told["accuracy"]) == pytest.approx(test["accuracy"], abs=1e-3)


def test_each_process_writes_its_rows_texts(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        writing,
        "write_texts",
        lambda model, batch, _: [f"text {i}" for i in batch["index"]],
    )
    monkeypatch.setattr(
        processes, "gather", lambda mine: [mine, {1: "text 1", 3: "text 3", -1: "-"}]
    )
    model = jft.Pretrained(*[None] * len(jft.Pretrained._fields))
    batches = [{"index": np.array([4, 0])}, {"index": np.array([2, -1])}]
    texts = writing.write_all(model, batches, None)
    assert texts == [f"text {i}" for i in range(5)]


def test_processes_that_were_not_started_alike_are_refused(fleet):
    workdir = fleet.folder / "unlike"
    ends = fleet.run(fleet.argv(workdir), more={1: "--config.seed=7"})
    assert [end.status for end in ends] == [2, 2], ends
    for end in ends:
        assert "process 1 has another config, model, data than process 0" in end.log
    assert "process 1: error: " in ends[1].log
