# SPDX-License-Identifier: Apache-2.0
"""Closed groups keep every bit; what opens moves as its formula says, both ways."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jft import paths
from jft.optim import (
    chain_thaw,
    close_gradients,
    gradual_unfreeze,
    is_open,
    make_optimizer,
    make_schedule,
    normalize_open_at,
    top_down,
)
from jft.optim.states import find_states
from jft.optim.unfreeze import GradualUnfreezeState
from jft.types import InputError

SHAPES = {
    "0/kernel": (3, 2),
    "1/kernel": (2, 2),
    "1/bias": (2,),
    "2/kernel": (2, 3),
    "2/bias": (3,),
}
LABELS = paths.unflatten(dict.fromkeys(SHAPES, "all"))
OPENINGS = {
    "top_down": top_down(1, every=3),
    "chain_thaw": chain_thaw(1, every=2),
    "windows": {2: 0, 1: ((2, 4), (6, None)), 0: ((3, 5),)},
}
RATE, CLIP, WD, B1, B2, EPS = 0.05, 0.6, 0.1, 0.9, 0.999, 1e-8


def depth(path):
    return int(path.split("/")[0])


def draw(seed, dtype=np.float64):
    generator = np.random.default_rng(seed)
    return {p: generator.normal(size=s).astype(dtype) for p, s in SHAPES.items()}


def make(open_at, **options):
    options = {
        "learning_rate": make_schedule("linear", RATE, num_steps=20),
        "weight_decay": WD,
        "clip_norm": CLIP,
        "layer_index": depth,
        "open_at": open_at,
    } | options
    return make_optimizer(LABELS, **options)


def open_in(open_at, step):
    return frozenset(
        g for g, spans in normalize_open_at(open_at).items() if is_open(spans, step)
    )


def run(tx, open_at, *, steps, static, drop_closed=True, dtype=np.float64):
    """Train; return the parameters and state after every step."""
    update = jax.jit(tx.update, static_argnames="open_groups")
    params = paths.unflatten({p: jnp.asarray(x) for p, x in draw(0, dtype).items()})
    opt_state = tx.init(params)
    trail = [(params, opt_state)]
    for t in range(steps):
        groups = open_in(open_at, t)
        grads = paths.unflatten(draw(t + 1, dtype))
        extra = {}
        if static:
            extra["open_groups"] = groups
            if drop_closed:
                grads = paths.map_with_path(
                    lambda p, g, groups=groups: g if depth(p) in groups else None, grads
                )
        updates, opt_state = update(grads, opt_state, params, **extra)
        params = jax.tree.map(
            lambda p, u: p if u is None else p + u,
            params,
            updates,
            is_leaf=lambda x: x is None,
        )
        trail.append((params, opt_state))
    return trail


def hand(open_at, *, steps):
    """AdamW a group, each with a clock that runs only while the group is open."""
    p = draw(0)
    m, v = ({k: np.zeros_like(x) for k, x in p.items()} for _ in range(2))
    clock = dict.fromkeys(p, 0)
    trail = [dict(p)]
    for t in range(steps):
        g = {k: x for k, x in draw(t + 1).items() if depth(k) in open_in(open_at, t)}
        norm = np.sqrt(sum((x**2).sum() for x in g.values()))
        for k in g:
            clock[k] += 1
            gk = g[k] * min(1.0, CLIP / norm)
            m[k] = B1 * m[k] + (1 - B1) * gk
            v[k] = B2 * v[k] + (1 - B2) * gk**2
            mhat, vhat = m[k] / (1 - B1 ** clock[k]), v[k] / (1 - B2 ** clock[k])
            decay = WD * p[k] if k.endswith("kernel") else 0.0
            rate = RATE * (1 - t / 20)  # the schedule runs on global steps
            p[k] = p[k] - rate * (mhat / (np.sqrt(vhat) + EPS) + decay)
        trail.append(dict(p))
    return trail


@functools.cache
def trail_of(name, static):
    """Everything in float64, for the tests below to look at from several sides."""
    with jax.enable_x64(True):
        return run(make(OPENINGS[name]), OPENINGS[name], steps=9, static=static)


both_ways = pytest.mark.parametrize("static", [False, True], ids=["gated", "static"])
each_opening = pytest.mark.parametrize("name", OPENINGS)


@both_ways
@each_opening
def test_opening_equals_the_hand_formula(name, static):
    expected = hand(OPENINGS[name], steps=9)
    for t, (params, _) in enumerate(trail_of(name, static)):
        for path, value in paths.flatten(params).items():
            np.testing.assert_allclose(
                value, expected[t][path], rtol=1e-11, err_msg=f"{path} at {t}"
            )


@both_ways
@each_opening
def test_closed_groups_keep_every_bit_of_parameters_and_state(name, static):
    trail = trail_of(name, static)
    moved = set()
    for t in range(9):
        groups = open_in(OPENINGS[name], t)
        before, after = (paths.flatten(trail[i][0]) for i in (t, t + 1))
        for path in SHAPES:
            same = np.array_equal(before[path], after[path])
            assert same == (depth(path) not in groups), (path, t)
            moved |= set() if same else {path}
        gates = [find_gate(trail[i][1]) for i in (t, t + 1)]
        for group in {0, 1, 2} - groups:
            chex.assert_trees_all_equal(*(gate.inner[str(group)] for gate in gates))
    assert moved == set(SHAPES)


def find_gate(opt_state):
    (gate,) = find_states(opt_state, GradualUnfreezeState)
    return gate


def test_the_first_open_update_is_a_fresh_adams():
    open_at = {2: 0, 1: 0, 0: 5}
    tx = make(open_at, clip_norm=None, weight_decay=0.0, learning_rate=RATE)
    with jax.enable_x64(True):
        trail = run(tx, open_at, steps=6, static=False)
    before, after = (np.asarray(trail[i][0]["0"]["kernel"]) for i in (5, 6))
    grad = draw(6)["0/kernel"]
    # Adam's first step is the rate times the sign of the gradient, up to eps.
    np.testing.assert_allclose(after - before, -RATE * np.sign(grad), rtol=1e-6)
    assert [int(s[0].count) for s in find_gate(trail[6][1]).inner.values()] == [1, 6, 6]


@each_opening
def test_static_open_groups_give_the_state_of_the_gates(name):
    for left, right in zip(trail_of(name, False), trail_of(name, True), strict=True):
        chex.assert_trees_all_equal_shapes_and_dtypes(left, right)
        chex.assert_trees_all_close(left, right, rtol=1e-11, atol=1e-14)


def test_anchor_and_average_too_and_closed_gradients_may_be_given():
    open_at = {2: 0, 1: ((0, 2),), 0: 2}
    tx = make(open_at, ema_decay=0.9, l2_sp=0.1)
    with jax.enable_x64(True):
        gated = run(tx, open_at, steps=4, static=False)
        for drop_closed in (True, False):
            static = run(tx, open_at, steps=4, static=True, drop_closed=drop_closed)
            chex.assert_trees_all_close(gated, static, rtol=1e-11, atol=1e-14)


# Directions whose state has another shape than one or two trees of moments.
@pytest.mark.parametrize("optimizer", ["adafactor", "lamb", "muon", "radam"])
def test_other_directions_can_be_gated(optimizer):
    open_at = {2: 0, 1: 9, 0: 9}
    tx = make(open_at, optimizer=optimizer)
    gated = run(tx, open_at, steps=2, static=False, dtype=np.float32)
    static = run(tx, open_at, steps=2, static=True, dtype=np.float32)
    chex.assert_trees_all_equal_shapes_and_dtypes(gated, static)
    chex.assert_trees_all_close(gated, static, rtol=1e-4, atol=1e-5)
    start, end = (paths.flatten(static[i][0]) for i in (0, 2))
    moved = {path for path in SHAPES if not np.array_equal(start[path], end[path])}
    assert moved == {"2/kernel", "2/bias"}


def test_clip_measures_the_open_gradients_only():
    tx = make(
        {2: 0, 1: 5, 0: 5},
        optimizer=optax.identity(),
        learning_rate=1.0,
        weight_decay=0.0,
        clip_norm=1.0,
    )
    grads = paths.unflatten({p: np.full(s, 1e3, np.float32) for p, s in SHAPES.items()})
    grads["2"] = jax.tree.map(lambda g: g * 1e-3, grads["2"])
    updates, _ = tx.update(grads, tx.init(grads), grads)
    np.testing.assert_allclose(updates["2"]["bias"], -1 / 3 * np.ones(3), rtol=1e-6)
    assert not np.any(updates["1"]["kernel"])


def test_a_closed_gradient_that_is_not_finite_does_no_harm():
    tx = make({2: 0, 1: 5, 0: 5})
    grads = paths.unflatten(draw(1, np.float32))
    grads["0"]["kernel"] = np.full((3, 2), np.nan, np.float32)
    updates, _ = tx.update(grads, tx.init(grads), grads)
    chex.assert_tree_all_finite(updates)


def test_the_given_step_opens_not_the_count_of_updates():
    open_at = {2: 0, 1: 0, 0: 7}
    tx = make(open_at)
    params = paths.unflatten(draw(0, np.float32))
    for step, opened in [(6, False), (7, True)]:
        updates, _ = tx.update(params, tx.init(params), params, step=jnp.int32(step))
        assert bool(np.any(updates["0"]["kernel"])) is opened


def test_groups_without_windows_open_only_by_hand():
    open_at = {2: (), 1: (), 0: ()}
    tx = make(open_at)
    params = paths.unflatten(draw(0, np.float32))
    state = tx.init(params)
    updates, _ = tx.update(params, state, params)
    assert not any(np.any(u) for u in jax.tree.leaves(updates))
    updates, _ = tx.update(params, state, params, open_groups=frozenset({1}))
    assert {p for p, u in paths.flatten(updates).items() if np.any(u)} == {
        "1/kernel",
        "1/bias",
    }


def test_state_structure_and_compilations_do_not_depend_on_the_step():
    open_at = OPENINGS["top_down"]
    tx = make(open_at)
    params = jax.tree.map(jnp.asarray, paths.unflatten(draw(0, np.float32)))
    update = jax.jit(tx.update)
    opt_state = tx.init(params)
    for _ in range(8):
        updates, new_state = update(params, opt_state, params)
        chex.assert_trees_all_equal_shapes_and_dtypes(opt_state, new_state)
        params, opt_state = optax.apply_updates(params, updates), new_state
    assert update._cache_size() == 1


def test_updates_that_are_none_stay_none():
    open_at = {2: 0, 1: 0, 0: 0}
    params = paths.unflatten(draw(0, np.float32)) | {"0": {"kernel": None}}
    for tx in (
        close_gradients(depth, open_at),
        gradual_unfreeze(optax.identity(), depth, open_at),
    ):
        for extra in ({}, {"open_groups": frozenset({2})}):
            updates, _ = tx.update(params, tx.init(params), params, **extra)
            assert updates["0"] == {"kernel": None}
            chex.assert_trees_all_equal(updates["2"], params["2"])
            assert bool(np.any(updates["1"]["bias"])) == (not extra)


@pytest.mark.parametrize("gate", [close_gradients, gradual_unfreeze])
def test_every_group_needs_an_opening(gate):
    tx = gate(*([optax.identity()] if gate is gradual_unfreeze else []), depth, {2: 0})
    with pytest.raises(InputError, match=r"\['0', '1', '2'\]; groups in .* \['2'\]"):
        tx.init(paths.unflatten(draw(0, np.float32)))


@pytest.mark.parametrize("gate", [close_gradients, gradual_unfreeze])
def test_a_group_that_open_at_does_not_know_is_not_opened_silently(gate):
    inner = [optax.identity()] if gate is gradual_unfreeze else []
    tx = gate(*inner, depth, {2: 0, 1: 0, 0: 0})
    params = paths.unflatten(draw(0, np.float32))
    with pytest.raises(InputError, match=r"\['head'\], but .* \['0', '1', '2'\]"):
        tx.update(params, tx.init(params), params, open_groups=frozenset({"head", 2}))
