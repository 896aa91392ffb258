# SPDX-License-Identifier: Apache-2.0
"""A plan counts each byte of a device once, and refuses what does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jft import train
from jft.optim import make_optimizer
from jft.partition import label_params
from jft.tasks.classification import make_loss
from jft.types import InputError

RULES = [("classifier/.*", "head"), (".*", "frozen")]


def plan(model, rules, **mesh):
    labels = label_params(model.params, rules)
    tx = make_optimizer(labels, learning_rate=1e-2)
    state = train.init_state(model.params, labels, tx=tx, key=jax.random.key(0))
    batch, shardings = model.batch(16), None
    if mesh:
        mesh = train.make_mesh(**mesh)
        shardings = train.state_shardings(state, mesh)
        state = train.place_state(state, shardings)
        batch = train.shard_batch(batch, mesh)
    step = train.make_train_step(
        model.apply_fn, make_loss(), tx, labels, state_shardings=shardings
    )
    return train.plan_memory(step.compile(state, batch), state, batch)


def bytes_of(tree):
    return sum(np.asarray(x).nbytes for x in jax.tree.leaves(tree))


def test_every_part_is_counted(tiny_vit):
    frozen = {k: v for k, v in tiny_vit.params.items() if k != "classifier"}
    head, full = plan(tiny_vit, RULES), plan(tiny_vit, [(".*", "all")])
    assert head.trainable == bytes_of(tiny_vit.params["classifier"])
    assert head.frozen == bytes_of(frozen)
    assert full.trainable == bytes_of(tiny_vit.params)
    assert full.frozen == 0
    for one in (head, full):  # two moments a parameter, and counters
        assert 0 <= one.optimizer - 2 * one.trainable < 64
        assert one.batch == bytes_of(tiny_vit.batch(16))
        assert one.total == sum(one)
    assert full.temporary > head.temporary + bytes_of(frozen)  # gradients at least


def test_of_a_sharded_leaf_a_device_has_its_share(tiny_vit, monkeypatch):
    monkeypatch.setattr("jft.train.sharding.MIN_SHARDED_SIZE", 64)
    one, four = (plan(tiny_vit, [(".*", "all")], **mesh) for mesh in ({}, {"fsdp": 4}))
    assert four.batch == one.batch // 4
    assert four.trainable < one.trainable / 2
    assert four.optimizer < one.optimizer / 2


@pytest.mark.parametrize(
    ("largest", "advice"),
    [
        ("trainable", "freeze more"),
        ("frozen", "train.compute_dtype"),
        ("optimizer", "less state"),
        ("temporary", "train.grad_accum_steps"),
    ],
)
def test_what_does_not_fit_is_refused_with_advice(largest, advice):
    sizes = dict.fromkeys(train.MemoryPlan._fields, 1_000_000)
    sizes[largest] = 3_000_000_000
    too_large = train.MemoryPlan(**sizes)
    with pytest.raises(InputError, match=rf"3 GB of a device that has 2 GB.*{advice}"):
        train.check_memory(too_large, 2_000_000_000)
    train.check_memory(too_large, too_large.total)
    train.check_memory(too_large, None)
    table = train.describe_memory(too_large, 2 * too_large.total)
    assert "50.0% of the device" in table


def test_a_cpus_devices_share_the_memory_of_the_machine():
    limit = train.device_bytes()
    assert 1e8 < limit * jax.local_device_count() < 1e14
    assert train.bytes_on_a_device({"x": jnp.ones((2, 3)), "n": None}) == 24
