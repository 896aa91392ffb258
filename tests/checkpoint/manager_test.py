# SPDX-License-Identifier: Apache-2.0

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jft.checkpoint import (
    Checkpoints,
    Manifest,
)

MANIFEST = Manifest(
    base="vit",
    base_digest="b" * 64,
    labels={"body/w": "frozen", "head/w": "head"},
    config_digest="c" * 64,
)


def make_state(seed: int = 0):
    """A small state with all that is awkward: holes, bf16, 0-d, empty, named tuples."""
    random = np.random.default_rng(seed)
    trainable = {
        "body": {"w": None},
        "head": {
            "w": jnp.asarray(random.normal(size=(3, 5)), jnp.float32),
            "empty": jnp.zeros((0, 4), jnp.float32),
        },
    }
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    opt_state = jax.tree.map(lambda x: x + x.dtype.type(seed + 0.5), tx.init(trainable))
    return {
        "trainable": trainable,
        "opt_state": opt_state,
        "ema": {"head.w": jnp.asarray(random.normal(size=7), jnp.bfloat16)},
        "step": jnp.asarray(seed, jnp.int32),
        "key": jax.random.key_data(jax.random.key(seed)),
    }


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def save(checkpoints, step, *, seed=None, best_value=None):
    checkpoints.save(
        step,
        make_state(step if seed is None else seed),
        data_state={"next_step": step},
        history=[{"step": step, "split": "train", "loss": 0.1 + step}],
        manifest=MANIFEST,
        best_value=best_value,
    )


def assert_bitwise(tree, other):
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        assert x.dtype == y.dtype
        assert x.shape == y.shape
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.mark.parametrize("asynchronous", [True, False])
def test_round_trip_is_bitwise(tmp_path, asynchronous):
    state = make_state(3)
    state["trainable"]["head"]["w"] = (
        state["trainable"]["head"]["w"].at[0, 0].set(jnp.nan)
    )
    history = [{"step": 1, "split": "train", "loss": 1 / 3}]
    with Checkpoints(tmp_path / "c", asynchronous=asynchronous) as checkpoints:
        checkpoints.save(
            7, state, data_state={"next_step": 7}, history=history, manifest=MANIFEST
        )
        history.append({"step": 2})
    restored = Checkpoints(tmp_path / "c").restore(7, abstract(state), expect=MANIFEST)
    assert_bitwise(restored.arrays, state)
    assert restored.data_state == {"next_step": 7}
    assert restored.history == [{"step": 1, "split": "train", "loss": 1 / 3}]
    assert restored.manifest.step == 7
    assert restored.skipped == ()


def test_arrays_may_be_donated_at_once(tmp_path):
    state = {"w": jnp.arange(1 << 18, dtype=jnp.float32)}
    before = np.array(state["w"])
    overwrite = jax.jit(
        lambda s: jax.tree.map(lambda x: x * 0 - 1, s), donate_argnums=0
    )
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, data_state={}, history=[], manifest=MANIFEST)
        result = overwrite(state)
        assert state["w"].is_deleted()
    restored = checkpoints.restore(1, abstract(result), expect=MANIFEST)
    np.testing.assert_array_equal(restored.arrays["w"], before)
