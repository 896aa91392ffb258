# SPDX-License-Identifier: Apache-2.0
"""L2-SP pulls what is anchored to where it started, each path as strongly as told."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jft import paths
from jft.optim import (
    ewc,
    l2_sp,
    make_optimizer,
    strength_by_rule,
    track_ema,
    track_swa,
)
from jft.optim.anchor import AnchorState
from jft.optim.ewc import EwcState
from jft.optim.states import find_states
from jft.types import InputError


def test_the_pull_is_towards_the_start():
    tx = l2_sp(0.5, lambda path, leaf: path != "head")
    start = {"body": jnp.array([1.0, 2.0]), "head": jnp.ones(1), "hole": None}
    state = tx.init(start)
    now = {"body": jnp.array([3.0, 2.0]), "head": jnp.zeros(1), "hole": None}
    zero = jax.tree.map(jnp.zeros_like, now)
    updates, state = tx.update(zero, state, now)
    np.testing.assert_array_equal(updates["body"], [1.0, 0.0])
    np.testing.assert_array_equal(updates["head"], [0.0])
    assert updates["hole"] is None
    assert state.anchor["head"] is None
    np.testing.assert_array_equal(state.anchor["body"], start["body"])


def test_anchored_parameters_come_back_without_a_gradient():
    params = {"body": jnp.array([5.0])}
    tx = optax.chain(l2_sp(1.0), optax.scale(-0.5))
    state = tx.init({"body": jnp.array([1.0])})
    for _ in range(20):
        updates, state = tx.update({"body": jnp.zeros(1)}, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["body"], [1.0], atol=1e-4)


def test_make_optimizer_pulls_what_its_mask_says_at_the_place_of_the_decay():
    labels = {"body": "all", "head": "all"}
    start = {"body": jnp.ones(1), "head": jnp.ones(1)}
    now = {"body": jnp.full(1, 2.0), "head": jnp.full(1, 2.0)}
    zero = jax.tree.map(jnp.zeros_like, now)
    for mask, head in [(lambda path, leaf: path == "body", 0.0), (None, -0.1)]:
        tx = make_optimizer(
            labels,
            optimizer=optax.identity(),
            learning_rate=0.1,
            l2_sp=1.0,
            anchor_mask=mask,
        )
        updates, _ = tx.update(zero, tx.init(start), now)
        np.testing.assert_allclose(updates["body"], [-0.1], rtol=1e-6)
        np.testing.assert_allclose(updates["head"], [head], rtol=1e-6)


@pytest.mark.parametrize(
    "options", [{"l2_sp": 1.0}, {"ewc": 1.0}, {"keep_anchor": True}]
)
def test_the_mask_holds_for_all_that_keeps_a_start(options):
    start = {"body": jnp.ones(1), "head": jnp.ones(1)}
    mask = lambda path, leaf: path == "body"  # noqa: E731
    tx = make_optimizer(
        dict.fromkeys(start, "all"), learning_rate=0.1, anchor_mask=mask, **options
    )
    state = tx.init(start)
    (kept,) = find_states(state, EwcState if "ewc" in options else AnchorState)
    assert list(paths.flatten(kept.anchor)) == ["body"]


@pytest.mark.parametrize(
    "tx",
    [l2_sp(1.0), ewc(1.0), track_ema(0.5), track_swa(0, 1)],
    ids=["l2_sp", "ewc", "ema", "swa"],
)
def test_an_update_without_the_parameters_is_refused(tx):
    params = {"w": jnp.ones(1)}
    with pytest.raises(InputError, match=r"tx.update\(grads, opt_state, params\)"):
        tx.update(params, tx.init(params))


def test_each_path_is_pulled_as_its_first_rule_says():
    rules = [("low/.*", 2.0), (r".*/bias", 0.0)]
    names = ["low/kernel", "low/bias", "high/kernel", "high/bias"]
    strength = strength_by_rule(rules, otherwise=0.5, anchored=names)
    start = paths.unflatten({name: jnp.ones(2) for name in names})
    now = paths.unflatten({name: jnp.array([3.0, 0.0]) for name in names})
    tx = l2_sp(strength)
    state = tx.init(start)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, now), state, now)
    expected = {"low/kernel": 2.0, "low/bias": 2.0, "high/kernel": 0.5, "high/bias": 0}
    for name, factor in expected.items():
        np.testing.assert_allclose(
            paths.flatten(updates)[name], factor * np.array([2.0, -1.0])
        )
    assert sorted(paths.flatten(state.anchor)) == sorted(names[:3])  # 0 keeps nothing


def test_make_optimizer_takes_a_strength_of_the_path():
    tx = make_optimizer(
        {"a": "all", "b": "all"},
        optimizer=optax.identity(),
        learning_rate=0.1,
        l2_sp={"a": 1.0, "b": 3.0}.__getitem__,
    )
    start, now = ({"a": jnp.full(1, x), "b": jnp.full(1, x)} for x in (1.0, 2.0))
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, now), tx.init(start), now)
    np.testing.assert_allclose(updates["a"], [-0.1], rtol=1e-6)
    np.testing.assert_allclose(updates["b"], [-0.3], rtol=1e-6)


@pytest.mark.parametrize(
    ("rules", "otherwise", "words"),
    [
        ([("a", -1.0)], 0.0, "expected 0 or more"),
        ([], -0.5, "-0.5 elsewhere"),
        ([("c.*", 1.0)], 0.0, "c\\.\\*"),
    ],
)
def test_strengths_that_mean_nothing_are_refused(rules, otherwise, words):
    with pytest.raises(InputError, match=words):
        strength_by_rule(rules, otherwise=otherwise, anchored=["a", "b"])
