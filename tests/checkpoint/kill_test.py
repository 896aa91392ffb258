# SPDX-License-Identifier: Apache-2.0
"""SIGKILL at random moments of processes that do nothing but save."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np

from jft.checkpoint import Checkpoints, Manifest

MANIFEST = Manifest(base="", base_digest="", labels={}, config_digest="")

# Imports are paid for once: each line on stdin forks a child that saves until killed.
SAVER = """
import itertools, os, sys
import numpy as np
import orbax.checkpoint
from jft.checkpoint import Checkpoints, Manifest

def save_for_ever(directory):
    print(os.getpid(), flush=True)
    manifest = Manifest(base="", base_digest="", labels={}, config_digest="")
    with Checkpoints(directory) as checkpoints:
        for step in itertools.count((checkpoints.latest_step() or 0) + 1):
            arrays = {str(i): np.full(999, step, np.int32) for i in range(4)}
            history = [{"step": step}]
            checkpoints.save(
                step, arrays, data_state={}, history=history, manifest=manifest
            )
            print(step, flush=True)

while sys.stdin.readline():
    if os.fork() == 0:
        save_for_ever(sys.argv[1])
    os.wait()
    print("dead", flush=True)
"""


def save_and_kill(saver, delay):
    """Let a child save, kill it ``delay`` after its second save began; its steps."""
    saver.stdin.write("\n")
    saver.stdin.flush()
    pid = int(saver.stdout.readline())
    told = [int(saver.stdout.readline()) for _ in range(2)]
    time.sleep(delay)
    os.kill(pid, signal.SIGKILL)
    while (line := saver.stdout.readline().strip()) != "dead":
        told.append(int(line))
    return told


def test_what_is_left_is_whole_and_progress_is_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    abstract = {str(i): np.zeros(999, np.int32) for i in range(4)}
    delays = random.Random(0)
    previous = 0
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SAVER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    ) as saver:
        for _ in range(10):
            told = save_and_kill(saver, delays.uniform(0, 0.2))
            for step in checkpoints.steps():
                restored = checkpoints.restore(step, abstract, expect=MANIFEST)
                assert all((x == step).all() for x in restored.arrays.values())
                assert restored.history == [{"step": step}]
            latest = checkpoints.latest_step() or 0
            assert latest >= max(told) - 1  # save n returns once n - 1 is written
            assert latest > previous
            previous = latest
