# SPDX-License-Identifier: Apache-2.0
"""SIGKILL at random moments of a process that does nothing but save."""

import os
import random
import subprocess
import sys
import time

import numpy as np

from jft.checkpoint import Checkpoints, Manifest

MANIFEST = Manifest(base="", base_digest="", labels={}, config_digest="")

SAVER = """
import itertools, sys
import numpy as np
from jft.checkpoint import Checkpoints, Manifest

manifest = Manifest(base="", base_digest="", labels={}, config_digest="")
with Checkpoints(sys.argv[1]) as checkpoints:
    for step in itertools.count((checkpoints.latest_step() or 0) + 1):
        arrays = {str(i): np.full(999, step, np.int32) for i in range(4)}
        checkpoints.save(
            step, arrays, data_state={}, history=[{"step": step}], manifest=manifest
        )
        print(step, flush=True)
"""


def test_what_is_left_is_whole_and_progress_is_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    abstract = {str(i): np.zeros(999, np.int32) for i in range(4)}
    delays = random.Random(0)
    previous = 0
    for _ in range(10):
        saver = subprocess.Popen(
            [sys.executable, "-c", SAVER, str(tmp_path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )
        told = [int(saver.stdout.readline()) for _ in range(2)]  # 1 written, 1 begun
        time.sleep(delays.uniform(0, 0.3))
        saver.kill()
        told += [int(line) for line in saver.stdout.read().split()]
        saver.wait()
        saver.stdout.close()
        for step in checkpoints.steps():
            restored = checkpoints.restore(step, abstract, expect=MANIFEST)
            assert all((x == step).all() for x in restored.arrays.values())
            assert restored.history == [{"step": step}]
        latest = checkpoints.latest_step() or 0
        assert latest >= max(told) - 1  # save n returns once n - 1 is written
        assert latest > previous
        previous = latest
