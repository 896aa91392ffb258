# SPDX-License-Identifier: Apache-2.0
"""Each named optimizer descends, keeps trees as they are and equals optax's own."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from jft.optim import OPTIMIZERS, eval_params, make_optimizer

WD = 0.1
contrib = optax.contrib

# name -> (learning rate at which it makes progress, optax's own with the same decay)
CONTRACT = {
    "adabelief": (0.1, lambda r: optax.adabelief(r)),
    "adafactor": (0.1, None),  # optax's multiplies decay by no rate
    "adagrad": (0.5, lambda r: optax.adagrad(r)),
    "adamax": (0.1, lambda r: optax.adamaxw(r, weight_decay=WD)),
    "adamw": (0.1, lambda r: optax.adamw(r, weight_decay=WD)),
    "adan": (0.1, lambda r: optax.adan(r, weight_decay=WD)),
    "ademamix": (0.1, lambda r: contrib.ademamix(r, weight_decay=WD)),
    "amsgrad": (0.1, lambda r: optax.amsgrad(r)),
    "lamb": (0.1, lambda r: optax.lamb(r, weight_decay=WD)),
    "lars": (20.0, lambda r: optax.lars(r, weight_decay=WD)),
    "lion": (0.05, lambda r: optax.lion(r, weight_decay=WD)),
    "muon": (
        0.3,
        lambda r: contrib.muon(
            r, consistent_rms=0.2, weight_decay=WD, adam_weight_decay=WD, nesterov=True
        ),
    ),
    "nadam": (0.1, lambda r: optax.nadamw(r, weight_decay=WD)),
    "radam": (0.3, lambda r: optax.radam(r)),
    "rmsprop": (0.05, lambda r: optax.rmsprop(r)),
    "sam": (0.05, lambda r: reference_sam(optax.sgd(r, momentum=0.9))),
    "sam_adamw": (0.3, lambda r: reference_sam(optax.adamw(r, weight_decay=WD))),
    "schedule_free_adamw": (
        0.2,
        lambda r: contrib.schedule_free_adamw(r, weight_decay=WD),
    ),
    "schedule_free_sgd": (0.2, lambda r: contrib.schedule_free_sgd(r, weight_decay=WD)),
    "sgd": (0.05, lambda r: optax.sgd(r, momentum=0.9)),
    "signum": (0.05, lambda r: optax.signum(r)),
    "yogi": (0.1, lambda r: optax.yogi(r)),
}
# optax's own has no decoupled decay: compared without
WITHOUT_DECAY = {
    *("adabelief", "adagrad", "amsgrad", "radam", "rmsprop", "sam", "sgd"),
    *("signum", "yogi"),
}
# Adam's half of optax's muon is Nesterov's, so only the matrices are the same
MATRICES_ONLY = {"muon"}

LABELS = {"a": {"kernel": "body", "bias": "body"}, "b": {"kernel": "frozen"}}
TARGET = {
    "a": {"kernel": jnp.full((3, 2), -0.5), "bias": jnp.full((2,), 0.25)},
    "b": {"kernel": jnp.zeros((2, 2))},
}


def reference_sam(outer):
    adversary = optax.chain(contrib.normalize(), optax.sgd(0.05))
    return contrib.sam(outer, adversary, sync_period=2)


def start():
    generator = np.random.default_rng(0)
    return jax.tree.map(
        lambda t: jnp.asarray(t + 1 + generator.uniform(size=t.shape), t.dtype), TARGET
    )


def loss(params):
    gaps = jax.tree.map(lambda p, t: jnp.sum((p - t) ** 2), params, TARGET)
    return sum(jax.tree.leaves(gaps))


def make(name, *, weight_decay):
    return make_optimizer(
        LABELS,
        optimizer=name,
        learning_rate=CONTRACT[name][0],
        weight_decay=weight_decay,
        decay_mask=lambda path, leaf: True,
    )


def test_every_optimizer_is_in_the_table():
    assert CONTRACT.keys() == OPTIMIZERS.keys()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_descends_and_moves_only_what_trains(name):
    tx = make(name, weight_decay=0.0)
    params = start()
    opt_state = tx.init(params)

    @jax.jit
    def step(params, opt_state):
        updates, opt_state = tx.update(jax.grad(loss)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    frozen = params["b"]["kernel"]
    before = loss(params)
    for _ in range(30):
        params, opt_state = step(params, opt_state)
    final = eval_params(opt_state, params)
    gained = (before - loss(final)) / (before - jnp.sum((frozen - 0) ** 2))
    assert gained > 0.5
    np.testing.assert_array_equal(params["b"]["kernel"], frozen)
    assert step._cache_size() == 1
    assert all(x.shape != (2, 2) for x in jax.tree.leaves(opt_state))


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_dtypes_structure_and_holes_are_kept(name, dtype):
    tx = make(name, weight_decay=WD)
    params = jax.tree.map(lambda x: x.astype(dtype), start())
    split = {"a": params["a"], "b": {"kernel": None}}
    for tree in (params, split):
        opt_state = jax.eval_shape(tx.init, tree)
        updates, new_state = jax.eval_shape(tx.update, tree, opt_state, tree)
        chex.assert_trees_all_equal_shapes_and_dtypes(updates, tree)
        chex.assert_trees_all_equal_shapes_and_dtypes(opt_state, new_state)
    chex.assert_trees_all_equal_structs(
        jax.eval_shape(tx.init, params), jax.eval_shape(tx.init, split)
    )


@pytest.mark.parametrize("name", [n for n, (_, own) in CONTRACT.items() if own])
def test_it_equals_optaxs_own(name):
    rate, own = CONTRACT[name]
    tx = make(name, weight_decay=0.0 if name in WITHOUT_DECAY else WD)
    reference = own(rate)
    params = start()
    a = {"a": params["a"]}  # optax's own moves all it is given
    compared = ["kernel"] if name in MATRICES_ONLY else ["kernel", "bias"]
    grads = jax.tree.map(lambda p: p * 0.1, params)

    @jax.jit
    def both(ours, theirs):
        (params, state), (a, own_state) = ours, theirs
        updates, state = tx.update(grads, state, params)
        ours = optax.apply_updates(params, updates), state
        with jax.numpy_dtype_promotion("standard"):
            updates, own_state = reference.update({"a": grads["a"]}, own_state, a)
        return ours, (optax.apply_updates(a, updates), own_state)

    with jax.numpy_dtype_promotion("standard"):
        theirs = a, reference.init(a)
    ours = params, tx.init(params)
    for _ in range(4):
        ours, theirs = both(ours, theirs)
        for leaf in compared:
            np.testing.assert_allclose(
                ours[0]["a"][leaf], theirs[0]["a"][leaf], rtol=2e-5
            )


def test_schedule_free_evaluates_the_papers_average_on_one_clock():
    def rate(step):  # rises, so that a clock one step off shows
        return 0.1 + 0.05 * jnp.asarray(step, float)

    params = {"a": jnp.array([1.0, 2.0])}
    tx = make_optimizer({"a": "all"}, optimizer="schedule_free_sgd", learning_rate=rate)
    state = tx.init(params)
    fast = average = np.array([1.0, 2.0])
    weight = largest = 0.0
    for step in range(4):
        updates, state = tx.update(params, state, params)
        fast = fast - float(rate(step)) * np.asarray(params["a"])
        largest = max(largest, float(rate(step)))  # optax weighs by the largest so far
        weight += largest**2
        average = average + largest**2 / weight * (fast - average)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(eval_params(state, params)["a"], average, rtol=1e-5)
