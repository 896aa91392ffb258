# SPDX-License-Identifier: Apache-2.0
"""Several processes train as one does; each reads its own rows of a batch."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

NUM_STEPS = 4

WORKER = (
    """
import json
import sys

import jax

from tests.conftest import build_tiny_vit  # settles strictness, and four devices

address, count, index = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
jax.config.update("jax_num_cpu_devices", 4 // count)
if count > 1:
    jax.distributed.initialize(address, count, index)

import jft.train.sharding
from jft import train
from jft.models import get_family
from jft.optim import make_optimizer
from jft.partition import label_params
from jft.tasks.classification import make_loss

jft.train.sharding.MIN_SHARDED_SIZE = 64
model = build_tiny_vit()
labels = label_params(model.params, [("vit/embeddings/.*", "frozen"), (".*", "all")])
tx = make_optimizer(labels, learning_rate=1e-2, clip_norm=1.0)
mesh = train.make_mesh(**json.loads(sys.argv[4]))
state = train.init_state(model.params, labels, tx=tx, key=jax.random.key(0))
rules = get_family("vit").tensor_rules
shardings = train.state_shardings(state, mesh, tensor_rules=rules)
state = train.place_state(state, shardings)
step = train.make_train_step(
    model.apply_fn, make_loss(), tx, labels, state_shardings=shardings
)
share = 16 // count
losses = []
for i in range(%d):
    whole = model.batch(16, seed=i, ragged=3)
    mine = {k: v[share * index : share * (index + 1)] for k, v in whole.items()}
    state, metrics = step(state, train.shard_batch(mine, mesh))
    losses.append(float(metrics["loss"]))
print(json.dumps(losses))
"""
    % NUM_STEPS
)  # noqa: UP031 - the worker has braces of its own


def run(num_processes, mesh):
    """The losses that each of several processes saw."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    workers = [
        subprocess.Popen(
            [
                *(sys.executable, "-c", WORKER, address),
                *(str(num_processes), str(index), json.dumps(mesh)),
            ],
            cwd=Path(__file__).parents[2],
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
    ("num_processes", "mesh"), [(2, {"fsdp": 2}), (2, {"tensor": 2}), (4, {"fsdp": 4})]
)
def test_losses_are_those_of_one_process(alone, num_processes, mesh):
    for losses in run(num_processes, mesh):
        np.testing.assert_allclose(losses, alone, rtol=1e-6)
