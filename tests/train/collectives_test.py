# SPDX-License-Identifier: Apache-2.0
"""What a step sends is read from its program, and is what its parameters need."""

import jax
import pytest

from jft import train
from jft.optim import make_optimizer
from jft.partition import label_params, num_params
from jft.tasks.classification import make_loss

HEAD = [("classifier/.*", "head"), (".*", "frozen")]
FULL = [(".*", "all")]


def compile_step(model, rules, **mesh):
    labels = label_params(model.params, rules)
    tx = make_optimizer(labels, learning_rate=1e-2)
    state = train.init_state(model.params, labels, tx=tx, key=jax.random.key(0))
    mesh = train.make_mesh(**mesh)
    shardings = train.state_shardings(state, mesh)
    step = train.make_train_step(
        model.apply_fn, make_loss(), tx, labels, state_shardings=shardings
    )
    state = train.place_state(state, shardings)
    return step.compile(state, train.shard_batch(model.batch(16), mesh))


@pytest.mark.parametrize("rules", [HEAD, FULL])
def test_examples_spread_over_devices_cost_one_gradient(tiny_vit, rules):
    """Nearly twice the gradient's bytes; frozen leaves cost none."""
    program = compile_step(tiny_vit, rules)
    found = train.count_collectives(program.executable.as_text())
    assert found.keys() == {"all-reduce"}
    gradient = 4 * program.num_params
    assert gradient <= found["all-reduce"].result_bytes <= gradient + 64
    assert found["all-reduce"].sent_bytes == 1.5 * found["all-reduce"].result_bytes


def test_spread_parameters_are_gathered(tiny_vit, monkeypatch):
    monkeypatch.setattr("jft.train.sharding.MIN_SHARDED_SIZE", 64)
    program = compile_step(tiny_vit, FULL, fsdp=4)
    found = train.count_collectives(program.executable.as_text())
    # once for the forward and at most once more for the backward pass
    whole = 4 * num_params(tiny_vit.params)
    assert 0.8 * whole < found["all-gather"].result_bytes < 2.2 * whole


def test_shapes_groups_and_kinds_are_read():
    text = """
  %a = f32[4,2]{1,0} all-gather(%x), replica_groups=[2,4]<=[8], dimensions={0}
  %b = (bf16[8]{0}, s32[2]{0}) all-reduce(%x, %y), replica_groups={{0,1},{2,3}}
  %c = pred[16]{0} collective-permute(%x), source_target_pairs={{0,1},{1,0}}
  %d = f32[2]{0} reduce-scatter-start(%x), replica_groups=[1,4]<=[4]
  %f = f32[4]{0} all-to-all(%x), replica_groups=mesh['a'=2,'b'=4] {'a','b':(1)2}, x
  %e = f32[100]{0} add(%all-reduce.1, %y), metadata={op_name="all-reduce"}
    """
    found = train.count_collectives(text)
    assert found["all-gather"] == (1, 32, 24.0)
    assert found["all-reduce"] == (1, 24, 24.0)
    assert found["collective-permute"] == (1, 16, 16)
    assert found["reduce-scatter"] == (1, 8, 24)
    assert found["all-to-all"] == (1, 16, 12.0)
    assert len(found) == 5
