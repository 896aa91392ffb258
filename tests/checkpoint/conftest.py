# SPDX-License-Identifier: Apache-2.0
"""A small awkward state and how the tests of this folder save and compare it."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jft.checkpoint import Manifest

MANIFEST = Manifest(
    base="vit",
    base_digest="b" * 64,
    labels={"body/w": "frozen", "head/w": "head"},
    config_digest="c" * 64,
    open_groups=("3", "4"),
)


def make_state(seed=0):
    """Build holes, named tuples, 0-d, empty, bf16 and uint32 leaves, from a seed."""
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


def save(checkpoints, step, *, best_value=None):
    """Save the state whose seed is the step."""
    checkpoints.save(
        step,
        make_state(step),
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


@pytest.fixture
def example():
    """The names above, as ``importlib`` mode gives tests no module to import."""
    return SimpleNamespace(
        manifest=MANIFEST,
        make_state=make_state,
        abstract=abstract,
        save=save,
        assert_bitwise=assert_bitwise,
    )
