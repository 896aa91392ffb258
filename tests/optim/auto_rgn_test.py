# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jft.optim import auto_rgn, make_optimizer
from jft.types import InputError

LAYERS = {"low_kernel": 0, "low_bias": 0, "mid": 1, "head": 2}
SHAPES = {"low_kernel": (3, 2), "low_bias": (2,), "mid": (4,), "head": (2, 2)}


def draw(seed):
    rng = np.random.default_rng(seed)
    return {k: rng.normal(size=s).astype(np.float32) for k, s in SHAPES.items()}


def as_arrays(tree):
    return jax.tree.map(jnp.asarray, tree)


def by_hand(params, grads):
    """The paper's factor of each layer."""
    ratio = {}
    for layer in set(LAYERS.values()):
        names = [k for k in LAYERS if LAYERS[k] == layer]
        norms = [
            np.linalg.norm(np.concatenate([tree[k].ravel() for k in names]))
            for tree in (grads, params)
        ]
        ratio[layer] = norms[0] / norms[1]
    return {layer: r / max(ratio.values()) for layer, r in ratio.items()}


@pytest.mark.parametrize("every", [1, 2, 3])
def test_rates_are_the_papers_and_stay_between_two_measures(every):
    tx = auto_rgn(optax.scale(2.0), LAYERS.__getitem__, every=every)
    params = draw(0)
    state = tx.init(as_arrays(params))
    for step in range(5):
        grads, params = draw(10 + step), draw(20 + step)
        if step % every == 0:
            factors = by_hand(params, grads)
            assert max(factors.values()) == 1.0
        updates, state = tx.update(as_arrays(grads), state, as_arrays(params))
        for name in SHAPES:
            expected = 2.0 * grads[name] * factors[LAYERS[name]]
            np.testing.assert_allclose(updates[name], expected, rtol=1e-5)


def test_adam_does_not_cancel_it_and_a_clip_does_not_change_it():
    labels = dict.fromkeys(SHAPES, "all")
    params, grads = draw(0), draw(1)
    factors = by_hand(params, grads)
    for clip in (None, 0.01):
        tx = make_optimizer(
            labels, learning_rate=1.0, auto_rgn=1, clip_norm=clip,
            hyperparams={"eps": 1e-12},
            layer_index=LAYERS.__getitem__, num_layers=1,
        )  # fmt: skip
        state = tx.init(as_arrays(params))
        updates, _ = tx.update(as_arrays(grads), state, as_arrays(params))
        for name in SHAPES:  # the first step of Adam has length 1
            sizes = np.abs(np.asarray(updates[name]))
            np.testing.assert_allclose(sizes, factors[LAYERS[name]], rtol=1e-3)


def test_a_layer_of_zeros_has_the_whole_rate_and_takes_no_part():
    tx = auto_rgn(optax.identity(), every=1)
    params = {"zero": jnp.zeros(2), "a": jnp.ones(1), "b": jnp.ones(1)}
    grads = {"zero": jnp.ones(2), "a": jnp.full(1, 4.0), "b": jnp.ones(1)}
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(updates["zero"], [1.0, 1.0])
    np.testing.assert_allclose(updates["a"], [4.0])
    np.testing.assert_allclose(updates["b"], [0.25])


def test_without_any_gradient_nothing_is_divided_by_zero():
    tx = auto_rgn(optax.identity(), every=1)
    params = {"a": jnp.ones(1)}
    updates, _ = tx.update({"a": jnp.zeros(1)}, tx.init(params), params)
    np.testing.assert_array_equal(updates["a"], [0.0])


def test_what_it_cannot_go_with_is_refused():
    with pytest.raises(InputError, match="every 0 steps"):
        auto_rgn(optax.identity(), every=0)
    with pytest.raises(InputError, match="auto_rgn is 1 together with open_at"):
        make_optimizer(
            {"a": "all"}, learning_rate=1.0, auto_rgn=1,
            open_at={0: 0}, group_of=lambda path: 0,
        )  # fmt: skip
