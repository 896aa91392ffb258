# SPDX-License-Identifier: Apache-2.0
"""One device, four devices under jit (data, fsdp) and pmap: one result."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from jft import paths
from jft.evals import evaluate
from jft.models import get_family
from jft.optim import make_optimizer, top_down
from jft.partition import label_params
from jft.tasks.classification import make_loss
from jft.train import (
    cast_floating,
    check_batch_size,
    init_state,
    make_eval_step,
    make_mesh,
    make_pmap_train_step,
    make_train_step,
    num_shares,
    param_shardings,
    place_state,
    replicate,
    shard_batch,
    split_over_devices,
    state_shardings,
    unreplicate,
)
from jft.train.sharding import _in_all
from jft.types import InputError

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("devices_worker.py")
KEY_BIAS = "attention/attention/key/bias"
RULES = [("vit/embeddings/.*", "frozen"), (".*", "moving")]
MESHES = {
    "data": {},
    "fsdp": {"fsdp": 4},
    "tensor": {"tensor": 4},
    "data+fsdp": {"fsdp": 2},
    "data+tensor": {"tensor": 2},
    "fsdp+tensor": {"fsdp": 2, "tensor": 2},
}
WAYS = [*MESHES, "pmap"]


@pytest.fixture
def small_leaves_are_sharded(monkeypatch):
    monkeypatch.setattr("jft.train.sharding.MIN_SHARDED_SIZE", 64)


class Trained(NamedTuple):
    losses: list[float]
    params: dict[str, np.ndarray]  # of the trainables
    traces: dict[str, np.ndarray]  # momentum, where the optimizer has it


def train(
    model,
    way,
    *,
    num_steps,
    dtype=jnp.float32,
    optimizer="adamw",
    grad_accum_steps=1,
    devices=None,
):
    """Train ``num_steps`` on one device or on four, in one of the ways."""
    params = cast_floating(model.params, dtype)
    labels = label_params(params, RULES)
    tx = make_optimizer(
        labels,
        optimizer=optimizer,
        learning_rate=1e-2,
        clip_norm=1.0,
    )
    state = init_state(params, labels, tx=tx, key=jax.random.key(0))
    args = (model.apply_fn, make_loss(), tx, labels)
    accum = {"grad_accum_steps": grad_accum_steps}
    place = lambda batch: batch  # noqa: E731
    if way == "pmap":
        step, state, place = (
            make_pmap_train_step(*args, **accum),
            replicate(state),
            split_over_devices,
        )
    elif way == "one":
        step = make_train_step(*args, **accum)
    else:
        mesh = make_mesh(**MESHES[way], devices=devices)
        rules = get_family("vit").tensor_rules
        shardings = state_shardings(state, mesh, tensor_rules=rules)
        state = place_state(state, shardings)
        step = make_train_step(*args, state_shardings=shardings, **accum)
        place = lambda batch: shard_batch(batch, mesh)  # noqa: E731
    losses = []
    for i in range(num_steps):
        batch = cast_floating(model.batch(16, seed=i, ragged=3), dtype)
        state, metrics = step(state, place(batch))
        losses.append(float(metrics["loss"]))
    if way == "pmap":
        state = unreplicate(state)
    host = {k: np.asarray(v) for k, v in paths.flatten(state.trainable).items()}
    opt_state = paths.flatten(state.opt_state)
    traces = {
        path: np.asarray(leaf)
        for path in host
        for key, leaf in opt_state.items()
        if key.endswith(f"trace/{path}")
    }
    return Trained(losses, host, traces)


@pytest.fixture(scope="module")
def one_step(tiny_vit):
    return train(tiny_vit, "one", num_steps=1, optimizer=optax.trace(decay=0.9))


@pytest.fixture(scope="module")
def twenty_steps(tiny_vit):
    with jax.enable_x64(True):
        return train(tiny_vit, "one", dtype=jnp.float64, num_steps=20)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("grad_accum_steps", [1, 2])
def test_one_step_in_float32(
    tiny_vit, one_step, way, grad_accum_steps, small_leaves_are_sharded
):
    """The loss, and the gradients, which a fresh trace keeps as they are."""
    one = one_step
    other = train(
        tiny_vit,
        way,
        num_steps=1,
        optimizer=optax.trace(decay=0.9),
        grad_accum_steps=grad_accum_steps,
    )
    np.testing.assert_allclose(one.losses, other.losses, rtol=1e-6)
    assert len(one.traces) == len(one.params)
    for path, grads in one.traces.items():
        if not path.endswith(KEY_BIAS):
            difference = np.linalg.norm(other.traces[path] - grads)
            assert difference <= 4e-6 * np.linalg.norm(grads), path


def test_a_batch_over_any_number_of_devices_is_the_same_batch(tmp_path):
    """Of 16 rows, three of them padding: of eight devices the last has no other."""
    file = tmp_path / "found.npz"
    subprocess.run(
        [sys.executable, str(WORKER), str(file)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    found = dict(np.load(file))
    names = [name[2:] for name in found if name.startswith("1 ")]
    assert len(found) == 4 * len(names)
    for name in names:
        if not name.endswith(KEY_BIAS):
            one = found[f"1 {name}"]
            for count in (2, 4, 8):
                difference = np.linalg.norm(found[f"{count} {name}"] - one)
                assert difference <= 4e-6 * np.linalg.norm(one), (count, name)


@pytest.mark.parametrize("way", WAYS)
def test_twenty_steps_in_float64(tiny_vit, twenty_steps, way, small_leaves_are_sharded):
    one = twenty_steps
    with jax.enable_x64(True):
        other = train(tiny_vit, way, dtype=jnp.float64, num_steps=20)
        np.testing.assert_allclose(one.losses, other.losses, rtol=0, atol=1e-10)
        for path, value in one.params.items():
            if not path.endswith(KEY_BIAS):
                np.testing.assert_allclose(
                    other.params[path], value, rtol=0, atol=1e-10
                )


def test_devices_drop_out_apart_under_pmap():
    """One row a device: with one mask for all, a mean gradient is 0 or 1."""

    def apply_fn(params, batch, *, key):
        kept = jax.random.bernoulli(key, 0.5, (len(batch["x"]), 64))
        return jnp.sum(jnp.where(kept, batch["x"] * params["w"][None], 0.0), -1)

    def loss_fn(outputs, batch):
        return jnp.sum(outputs), jnp.sum(batch["loss_mask"])

    labels, tx = {"w": "all"}, optax.sgd(1.0)
    state = init_state({"w": jnp.ones(64)}, labels, tx=tx, key=jax.random.key(0))
    batch = {"x": np.ones((4, 64), np.float32), "loss_mask": np.ones(4, np.float32)}
    step_fn = make_pmap_train_step(apply_fn, loss_fn, tx, labels)
    state, _ = step_fn(replicate(state), split_over_devices(batch))
    grads = 1 - np.asarray(unreplicate(state).trainable["w"])
    assert set(grads.tolist()) == {0.0, 0.25, 0.5, 0.75, 1.0}


def test_fsdp_spreads_parameters_and_their_optimizer_state(
    tiny_vit, small_leaves_are_sharded
):
    labels = label_params(tiny_vit.params, RULES)
    tx = make_optimizer(
        labels,
        learning_rate=1e-2,
        layer_index=tiny_vit.layer_index,
        open_at=top_down(tiny_vit.num_layers, every=1),
    )
    state = init_state(tiny_vit.params, labels, tx=tx, key=jax.random.key(0))
    mesh = make_mesh(fsdp=4)
    shardings = state_shardings(state, mesh)
    name = "vit/encoder/layer/0/intermediate/dense/kernel"
    assert paths.flatten(shardings.trainable)[name].spec == P(None, "fsdp")
    state = place_state(state, shardings)
    kernel = paths.flatten(state.trainable)[name]
    assert kernel.addressable_shards[0].data.size == kernel.size // 4
    moments = [k for k in paths.flatten(shardings.opt_state) if k.endswith(name)]
    assert len(moments) == 2
    for path in moments:
        assert paths.flatten(shardings.opt_state)[path].spec == P(None, "fsdp")


def test_the_tensor_axis_divides_the_products_of_a_layer(
    tiny_vit, small_leaves_are_sharded
):
    """And fsdp another axis of the same leaf; what does not divide stays whole."""
    mesh = make_mesh(fsdp=2, tensor=2)
    rules = get_family("vit").tensor_rules
    shardings = param_shardings(tiny_vit.params, mesh, tensor_rules=rules)
    specs = {path: x.spec for path, x in paths.flatten(shardings).items()}
    block = "vit/encoder/layer/0"
    assert specs[f"{block}/attention/attention/query/kernel"] == P("fsdp", "tensor")
    assert specs[f"{block}/attention/output/dense/kernel"] == P("tensor", "fsdp")
    assert specs[f"{block}/intermediate/dense/kernel"] == P("fsdp", "tensor")
    assert specs[f"{block}/output/dense/kernel"] == P("tensor", "fsdp")
    assert specs[f"{block}/output/dense/bias"] == P()
    odd = param_shardings(
        {"query": {"kernel": np.zeros((16, 15), np.float32)}},
        mesh,
        tensor_rules=[("query/kernel", -1)],
    )
    assert odd["query"]["kernel"].spec == P("fsdp", None)


@pytest.mark.parametrize("size", [16, 13])
def test_evaluation_counts_the_same_on_every_mesh(tiny_vit, size):
    """13 examples in batches of 8: the last batch has three padding rows."""
    whole = tiny_vit.batch(size)
    rows = {**whole, "index": np.arange(size, dtype=np.int32)}

    def batches():
        for start in range(0, size, 8):
            part = {k: v[start : start + 8] for k, v in rows.items()}
            pad = 8 - len(part["targets"])
            yield {
                k: np.concatenate([v, np.zeros((pad, *v.shape[1:]), v.dtype)])
                for k, v in part.items()
            }

    eval_step = make_eval_step(tiny_vit.apply_fn, make_loss())
    one = evaluate(eval_step, tiny_vit.params, batches())
    mesh = make_mesh()
    placed = (shard_batch(batch, mesh) for batch in batches())
    four = evaluate(eval_step, tiny_vit.params, placed)
    assert one.index.tolist() == four.index.tolist() == list(range(size))
    np.testing.assert_allclose(
        np.stack(four.rows["logits"]), np.stack(one.rows["logits"]), atol=1e-5
    )
    np.testing.assert_allclose(one.loss, four.loss, rtol=1e-6)


def test_a_batch_must_divide():
    check_batch_size(16, num_devices=4, grad_accum_steps=2)
    with pytest.raises(InputError, match=r"4 devices x 2 .* such as 8 or 16"):
        check_batch_size(12, num_devices=4, grad_accum_steps=2)
    with pytest.raises(InputError, match="do not divide over 4 devices"):
        split_over_devices({"x": np.zeros((6, 2))})


def test_a_mesh_must_use_every_device():
    with pytest.raises(InputError, match="data=3 x fsdp=1 x tensor=1 does not use 4"):
        make_mesh(data=3)
    assert make_mesh(devices=jax.devices()[:2]).shape["data"] == 2


def test_devices_of_the_tensor_axis_read_the_same_examples():
    mesh = make_mesh(tensor=2)
    assert num_shares(mesh) == 2
    batch = shard_batch({"x": np.arange(8)}, mesh)
    shards = {shard.device.id: shard.data for shard in batch["x"].addressable_shards}
    assert [shards[i].tolist() for i in range(4)] == [[0, 1, 2, 3]] * 2 + [
        [4, 5, 6, 7]
    ] * 2


def test_places_of_first_tokens_follow_the_devices_of_a_process(monkeypatch):
    """A process's rows lie where its devices do: here rows 2, 3, 6 and 7 of eight."""

    class Halves:
        def addressable_devices_indices_map(self, shape):
            assert shape == (8, 10)
            everything = slice(None)
            return {
                "one": (slice(6, 8), everything),
                "other": (slice(2, 4), everything),
            }

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    batch = {
        "segment_ids": np.zeros((4, 10), np.int32),
        "first_tokens": np.array([0, 7, 10, 25, 39], np.int32),
    }
    found = _in_all(batch, Halves())
    assert found.tolist() == [20, 27, 30, 65, 79]
    assert found.dtype == np.int32


def test_places_of_first_tokens_stay_in_a_single_process():
    mesh = make_mesh(devices=jax.devices()[:2])
    batch = {
        "segment_ids": np.zeros((4, 10), np.int32),
        "first_tokens": np.array([0, 7, 25, 39], np.int32),
    }
    np.testing.assert_array_equal(
        shard_batch(batch, mesh)["first_tokens"], batch["first_tokens"]
    )
