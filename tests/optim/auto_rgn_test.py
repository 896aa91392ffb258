# SPDX-License-Identifier: Apache-2.0
"""Auto-RGN's factors are the paper's ratios, measured when it says."""

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


def ratios_by_hand(params, grads):
    """The paper's relative norm of each layer."""
    ratio = {}
    for layer in set(LAYERS.values()):
        names = [k for k in LAYERS if LAYERS[k] == layer]
        norms = [
            np.linalg.norm(np.concatenate([tree[k].ravel() for k in names]))
            for tree in (grads, params)
        ]
        ratio[layer] = norms[0] / norms[1]
    return ratio


def by_hand(*measured):
    """The factor of each layer, from the ratios of every batch that is measured."""
    means = {layer: np.mean([r[layer] for r in measured]) for layer in measured[0]}
    return {layer: mean / max(means.values()) for layer, mean in means.items()}


@pytest.mark.parametrize(
    ("every", "batches"), [(1, 1), (3, 1), (1, 5), (2, 2), (4, 3), (20, 3)]
)
def test_rates_are_the_papers_and_stay_between_two_measures(every, batches):
    tx = auto_rgn(optax.scale(2.0), LAYERS.__getitem__, every=every, batches=batches)
    params = draw(0)
    state = tx.init(as_arrays(params))
    taken, measured = min(batches, every), []
    for step in range(10):
        grads, params = draw(10 + step), draw(20 + step)
        since = step % every
        measured = [] if since == 0 else measured
        if since < taken:
            measured.append(ratios_by_hand(params, grads))
        if since == taken - 1 or step < taken:
            factors = by_hand(*measured)
            assert max(factors.values()) == 1.0
        updates, state = tx.update(as_arrays(grads), state, as_arrays(params))
        for name in SHAPES:
            expected = 2.0 * grads[name] * factors[LAYERS[name]]
            np.testing.assert_allclose(updates[name], expected, rtol=1e-5)


def test_adam_does_not_cancel_it_and_a_clip_does_not_change_it():
    labels = dict.fromkeys(SHAPES, "all")
    params = draw(0)
    batches = [
        {k: size * x for k, x in draw(i).items()} for i, size in ((1, 9), (2, 1))
    ]
    factors = by_hand(*(ratios_by_hand(params, grads) for grads in batches))
    for clip in (None, 0.01):
        tx = make_optimizer(
            labels, optimizer="signum", learning_rate=1.0, auto_rgn=2, clip_norm=clip,
            layer_index=LAYERS.__getitem__,
        )  # fmt: skip
        state = tx.init(as_arrays(params))
        for grads in batches:
            updates, state = tx.update(as_arrays(grads), state, as_arrays(params))
        for name in SHAPES:  # each step has length 1
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


def test_a_layer_that_begins_as_zeros_is_measured_from_where_it_is_not():
    tx = auto_rgn(optax.identity(), every=3, batches=3)
    state = tx.init({"a": jnp.zeros(1), "b": jnp.ones(1)})
    grads = {"a": jnp.full(1, 4.0), "b": jnp.full(1, 1.0)}
    for size in (0.0, 1.0, 2.0):
        params = {"a": jnp.full(1, size), "b": jnp.ones(1)}
        updates, state = tx.update(grads, state, params)
    np.testing.assert_allclose(updates["a"], [4.0])  # 4 and 2, whose mean is 3
    np.testing.assert_allclose(updates["b"], [1 / 3])


def test_without_any_gradient_nothing_is_divided_by_zero():
    tx = auto_rgn(optax.identity(), every=1)
    params = {"a": jnp.ones(1)}
    updates, _ = tx.update({"a": jnp.zeros(1)}, tx.init(params), params)
    np.testing.assert_array_equal(updates["a"], [0.0])


def test_no_measure_is_refused():
    with pytest.raises(InputError, match="every 0 steps"):
        auto_rgn(optax.identity(), every=0)
    with pytest.raises(InputError, match="on 0 batches"):
        auto_rgn(optax.identity(), every=1, batches=0)
