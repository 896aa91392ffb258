# SPDX-License-Identifier: Apache-2.0
"""One of several processes that train together; `processes_test` starts them."""

import json
import sys

import jax

import jft.train.sharding
from jft import train
from jft.models import get_family
from jft.optim import make_optimizer
from jft.partition import label_params
from jft.tasks.classification import make_loss
from tests.conftest import build_tiny_vit  # settles how strict jax is, too

RULES = [("vit/embeddings/.*", "frozen"), (".*", "all")]
NUM_DEVICES = 4  # of all processes
BATCH_SIZE = 16


def main(address, count, index, mesh, num_steps):
    """Train, and print the losses."""
    jax.config.update("jax_num_cpu_devices", NUM_DEVICES // count)
    if count > 1:
        jax.distributed.initialize(address, count, index)
    jft.train.sharding.MIN_SHARDED_SIZE = 64
    model = build_tiny_vit()
    labels = label_params(model.params, RULES)
    tx = make_optimizer(labels, learning_rate=1e-2, clip_norm=1.0)
    state = train.init_state(model.params, labels, tx=tx, key=jax.random.key(0))
    mesh = train.make_mesh(**mesh)
    rules = get_family("vit").tensor_rules
    shardings = train.state_shardings(state, mesh, tensor_rules=rules)
    state = train.place_state(state, shardings)
    step = train.make_train_step(
        model.apply_fn, make_loss(), tx, labels, state_shardings=shardings
    )
    share = BATCH_SIZE // count
    mine = slice(share * index, share * (index + 1))
    losses = []
    for seed in range(num_steps):
        batch = model.batch(BATCH_SIZE, seed=seed, ragged=3)
        local = {name: x[mine] for name, x in batch.items()}
        state, metrics = step(state, train.shard_batch(local, mesh))
        losses.append(float(metrics["loss"]))
    print(json.dumps(losses))


if __name__ == "__main__":
    address, *rest = sys.argv[1:]
    main(address, *map(json.loads, rest))
