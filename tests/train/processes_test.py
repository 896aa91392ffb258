# SPDX-License-Identifier: Apache-2.0
"""Several processes train as one does; each reads its own rows of a batch."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
NUM_STEPS = 4

WORKER = Path(__file__).with_name("processes_worker.py")


def run(num_processes, mesh):
    """The losses that each of several processes saw."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    workers = [
        subprocess.Popen(
            [
                *(sys.executable, str(WORKER), address, str(num_processes)),
                *(str(index), json.dumps(mesh), str(NUM_STEPS)),
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(num_processes)
    ]
    outputs = [worker.communicate(timeout=200)[0] for worker in workers]
    return [json.loads(output.splitlines()[-1]) for output in outputs]


@pytest.fixture(scope="module")
def alone():
    (losses,) = run(1, {})
    assert len(losses) == NUM_STEPS
    return losses


@pytest.mark.parametrize(
    ("num_processes", "mesh"), [(2, {"tensor": 2}), (4, {"fsdp": 4})]
)
def test_losses_are_those_of_one_process(alone, num_processes, mesh):
    for losses in run(num_processes, mesh):
        np.testing.assert_allclose(losses, alone, rtol=1e-6)
