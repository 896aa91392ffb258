# SPDX-License-Identifier: Apache-2.0
"""jft and torch give the same answers, whichever of them wrote the folder."""

import importlib.util
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jft
from jft.models import MODELS, dropout
from jft.models.arrays import along_last
from jft.params import checkpoint_keys, to_tensor
from tests.models import peer
from tests.models.table import TABLE

TOLERANCE = 1e-4  # on outputs of spread one
HAS_TORCH = importlib.util.find_spec("torch") is not None

needs_torch = pytest.mark.skipif(
    not HAS_TORCH, reason="torch is absent: pip install -e '.[parity]'"
)


def cases():
    """Every head of every family, and every variant with the head it is about."""
    for model_type, row in TABLE.items():
        for task in MODELS[model_type].heads:
            yield pytest.param(model_type, task, {}, id=f"{model_type}-{task}")
        for name, (task, changes) in row.variants.items():
            yield pytest.param(model_type, task, changes, id=f"{model_type}-{name}")


@needs_torch
@pytest.mark.parametrize(("model_type", "task", "changes"), [*cases()])
def test_same_answers_both_ways(model_type, task, changes, tmp_path):
    row = TABLE[model_type]
    config = peer.full_config(model_type, row, task, changes)
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    shapes = peer.write_folder(theirs, model_type, config, task, row.scales)
    batch = peer.make_batch(row, config, task)
    if changes:  # heads are compared with token types, variants without
        batch.pop("token_type_ids", None)
    expected = compare_both_ways(theirs, ours, model_type, task, batch, shapes)
    if not changes:
        compare_recorded(model_type, task, expected, peer.key_hash(shapes))


def compare_recorded(model_type, task, outputs, keys):
    """What is compared on machines without torch; see make_golden.py."""
    row = TABLE[model_type]
    config = peer.full_config(model_type, row, task)
    real = peer.real_positions(task, peer.make_batch(row, config, task))
    recorded = np.load(peer.golden_file(model_type))
    expected = recorded[f"{task}.outputs"]
    assert 0.3 < peer.spread(expected, real) < 3
    np.testing.assert_allclose(outputs[real], expected[real], atol=TOLERANCE)
    assert keys == str(recorded[f"{task}.keys"])


def compare_both_ways(theirs, ours, model_type, task, batch, shapes):
    """The folder ``theirs`` is read by both, and ``ours`` written and read again.

    Returns torch's outputs.
    """
    row = TABLE[model_type]
    torch_model = peer.read_torch(theirs, model_type, task)
    real = peer.real_positions(task, batch)

    # what torch wrote, jft reads: outputs, loss, gradients
    model = jft.load(theirs)
    assert model.task == task
    assert model.report.new == model.report.unused == ()
    shape = torch_shape(torch_model, task, batch)
    targets = peer.make_targets(task, shape, batch)
    expected, loss, grads = peer.torch_answers(torch_model, task, batch, targets)
    assert 0.3 < peer.spread(expected, real) < 3
    outputs, our_loss, our_grads = peer.jft_answers(
        model.module, model.params, batch, task, targets
    )
    np.testing.assert_allclose(outputs[real], expected[real], atol=TOLERANCE)
    np.testing.assert_allclose(our_loss, loss, rtol=TOLERANCE, atol=TOLERANCE)
    compare_grads(model, our_grads, grads, zero_grad=row.zero_grad)

    # what jft writes, torch reads: every key in its place, the same outputs
    jft.save(ours, model)
    compare_files(ours, theirs)
    again = peer.read_torch(ours, model_type, task)
    np.testing.assert_array_equal(
        peer.torch_forward(again, task, batch).detach().numpy(), expected
    )
    assert peer.jft_key_hash(model_type, task, model.params) == peer.key_hash(shapes)
    assert again.config.to_dict() == torch_model.config.to_dict() | {
        "_name_or_path": str(ours)
    }
    return expected


def compare_files(ours, theirs):
    """The same files, and for generators the same special tokens."""
    assert {f.name for f in ours.iterdir()} == {f.name for f in theirs.iterdir()}
    if (theirs / "generation_config.json").exists():
        one, other = (
            json.loads((folder / "generation_config.json").read_text())
            for folder in (ours, theirs)
        )
        assert one == other


def torch_shape(model, task, batch):
    import torch

    with torch.no_grad():
        return peer.torch_forward(model, task, batch)


def compare_grads(model, ours, theirs, *, zero_grad):
    """Every gradient that torch has, in our axes, relative to the largest."""
    keys = checkpoint_keys(model.family, model.task, ours)
    largest = max(float(np.abs(grad).max()) for grad in theirs.values())
    compared = 0
    for path, grad in ours.items():
        if re.fullmatch(zero_grad, path) or keys[path] not in theirs:
            continue
        np.testing.assert_allclose(
            to_tensor(path, np.asarray(grad), model.family),
            theirs[keys[path]],
            atol=TOLERANCE * largest,
            err_msg=path,
        )
        compared += 1
    assert compared > len(ours) / 2


@needs_torch
@pytest.mark.parametrize(
    ("model_type", "task"),
    [(name, task) for name in TABLE for task in MODELS[name].heads if task != "base"],
)
def test_dropout_is_where_torch_has_it(model_type, task, tmp_path, monkeypatch):
    """Both libraries' dropout is replaced by a factor that tells its rate.

    It is on every other value, so that a norm behind it does not undo it.
    """
    import torch

    row = TABLE[model_type]
    config = peer.full_config(model_type, row, task, row.dropout)
    peer.write_folder(tmp_path, model_type, config, task, row.scales)
    torch_model = peer.read_torch(tmp_path, model_type, task).train()
    model = jft.load(tmp_path)
    batch = peer.make_batch(row, config, task)

    def factors(x, rate):
        return 1 + rate * (1 - np.arange(x.shape[-1], dtype=np.float32) % 2)

    def scale(x, p=0.5, training=True, inplace=False):
        return x * torch.from_numpy(factors(x, p)) if training else x

    def drop(x, words, *, rate):
        return x * along_last(jnp.asarray(factors(x, rate)), x)

    monkeypatch.setattr(torch.nn.functional, "dropout", scale)
    monkeypatch.setattr(dropout, "drop", drop)
    expected = peer.torch_forward(torch_model, task, batch).detach().numpy()
    outputs = jax.jit(
        lambda params: model.module.apply(
            {"params": params},
            batch,
            deterministic=False,
            rngs={"dropout": jax.random.key(0)},
        )
    )(model.params)
    real = peer.real_positions(task, batch)
    outputs = np.asarray(peer.pick(task, outputs))
    np.testing.assert_allclose(outputs[real], expected[real], atol=5 * TOLERANCE)
    torch_model.eval()
    plain = peer.torch_forward(torch_model, task, batch).detach().numpy()
    assert not np.allclose(plain[real], expected[real], atol=0.01)


# with torch, which is compared with what was recorded above, one head will do
@pytest.mark.parametrize(
    ("model_type", "task"),
    [
        (name, task)
        for name in TABLE
        for task in MODELS[name].heads
        if task == "base" or not HAS_TORCH
    ],
)
def test_recorded_torch_answers(model_type, task):
    """As the live comparison, on machines without torch."""
    row = TABLE[model_type]
    config = peer.full_config(model_type, row, task)
    module, params = peer.make_jft(model_type, config, task, row.scales)
    batch = peer.make_batch(row, config, task)
    outputs = jax.jit(lambda params: module.apply({"params": params}, batch))(params)
    outputs = np.asarray(peer.pick(task, outputs))
    keys = peer.jft_key_hash(model_type, task, params)
    compare_recorded(model_type, task, outputs, keys)


def test_recordings_are_of_the_table_as_it_is():
    for model_type, row in TABLE.items():
        recorded = np.load(peer.golden_file(model_type))
        assert str(recorded["config"]) == str(dict(row.config))
        for name, array in peer.make_batch(row, row.config).items():
            np.testing.assert_array_equal(recorded[f"batch.{name}"], array)
