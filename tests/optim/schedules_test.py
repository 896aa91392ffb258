# SPDX-License-Identifier: Apache-2.0
"""Each schedule equals its formula, traced or not, and follows the global step."""

import math
from inspect import signature

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jft.optim import SCHEDULES, make_schedule, scale_by_learning_rate
from jft.types import InputError

PEAK, STEPS, WARM = 0.4, 50, 10


def constant(t):
    return PEAK if t >= WARM else PEAK * t / WARM


def linear(t):
    fall = PEAK * (1 - min(t - WARM, STEPS - WARM) / (STEPS - WARM))
    return fall if t >= WARM else PEAK * t / WARM


def cosine(t):
    s = min(t - WARM, STEPS - WARM) / (STEPS - WARM)
    return PEAK * (1 + math.cos(math.pi * s)) / 2 if t >= WARM else PEAK * t / WARM


def rsqrt(t):
    return PEAK * math.sqrt(WARM / t) if t >= WARM else PEAK * t / WARM


def one_cycle(t):
    def between(a, b, s):
        return a + (b - a) * (1 - math.cos(math.pi * s)) / 2

    if t < WARM:
        return between(PEAK / 25, PEAK, t / WARM)
    return between(PEAK, PEAK / 25 / 1e4, min(1, (t - WARM) / (STEPS - WARM)))


def slanted_triangular(t):  # Howard and Ruder 2018, equation 3
    cut_frac, ratio = 0.1, 32
    cut = math.floor(STEPS * cut_frac)
    p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_frac - 1))
    return PEAK * (1 + max(p, 0) * (ratio - 1)) / ratio


def warmup_stable_decay(t):
    if t < WARM:
        return PEAK * t / WARM
    return PEAK * min(1, max(0, STEPS - t) / (0.2 * STEPS))


def warmup_stable_sqrt(t):  # Hägele et al. 2024, section 3
    if t < WARM:
        return PEAK * t / WARM
    length = 0.2 * STEPS
    return PEAK * (1 - math.sqrt(min(1, max(0, t - (STEPS - length)) / length)))


FORMULAE = {
    "constant": (constant, {"warmup_steps": WARM}),
    "cosine": (cosine, {"warmup_steps": WARM}),
    "linear": (linear, {"warmup_steps": WARM}),
    "one_cycle": (one_cycle, {"warmup_steps": WARM}),
    "rsqrt": (rsqrt, {"warmup_steps": WARM}),
    "slanted_triangular": (slanted_triangular, {}),
    "warmup_stable_decay": (warmup_stable_decay, {"warmup_steps": WARM}),
    "warmup_stable_sqrt": (warmup_stable_sqrt, {"warmup_steps": WARM}),
}


def test_every_schedule_is_in_the_table():
    assert FORMULAE.keys() == SCHEDULES.keys()


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_equals_its_formula_traced_and_not(name):
    formula, options = FORMULAE[name]
    schedule = make_schedule(name, PEAK, num_steps=STEPS, **options)
    steps = range(STEPS + 5)
    expected = [formula(t) for t in steps]
    np.testing.assert_allclose(
        [float(schedule(t)) for t in steps], expected, rtol=1e-5, atol=1e-7
    )
    traced = jax.jit(jax.vmap(schedule))(jnp.arange(STEPS + 5, dtype=jnp.int32))
    np.testing.assert_allclose(traced, expected, rtol=1e-5, atol=1e-7)
    assert max(expected) == pytest.approx(PEAK)


@pytest.mark.parametrize("name", ["constant", "cosine", "linear", "one_cycle"])
def test_no_warmup_starts_at_the_peak_or_its_own_rise(name):
    schedule = make_schedule(name, PEAK, num_steps=STEPS)
    first = PEAK / 25 if name == "one_cycle" else PEAK
    assert float(schedule(0)) == pytest.approx(first)


@pytest.mark.parametrize(
    "name",
    [n for n, f in SCHEDULES.items() if "end_fraction" in signature(f).parameters],
)
def test_end_fraction_is_where_it_ends(name):
    schedule = make_schedule(name, PEAK, num_steps=STEPS, end_fraction=0.25)
    assert float(schedule(STEPS)) == pytest.approx(PEAK / 4)


def test_slanted_triangle_of_uneven_length_is_never_negative():
    schedule = make_schedule("slanted_triangular", PEAK, num_steps=109)
    values = [float(schedule(t)) for t in range(109)]
    assert min(values) == pytest.approx(PEAK / 32)
    assert int(np.argmax(values)) == 10


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cosin", {}, r"unknown schedule 'cosin'; known: \['constant', 'cosine'"),
        ("cosine", {"ratio": 2}, r"no option \['ratio'\]; known: \['end_fraction'"),
        ("cosine", {"warmup_steps": STEPS}, "less than the run"),
        ("linear", {"warmup_steps": -1}, "at least 0"),
        ("rsqrt", {}, "neither warmup_steps nor timescale"),
        ("slanted_triangular", {"warmup_steps": 3}, "the rise is the warm-up"),
        ("slanted_triangular", {"cut_frac": 0.01}, "a rise of at least 1"),
        ("warmup_stable_decay", {"warmup_steps": 45}, "longer than the 50 steps"),
        ("warmup_stable_sqrt", {"warmup_steps": 45}, "longer than the 50 steps"),
        ("warmup_stable_decay", {"decay_fraction": -1.0}, "above 0 and at most 1"),
    ],
)
def test_bad_schedules_say_what_is_wrong(name, options, message):
    with pytest.raises(InputError, match=message):
        make_schedule(name, PEAK, num_steps=STEPS, **options)


def test_learning_rate_counts_its_updates_or_follows_the_given_step():
    tx = scale_by_learning_rate(lambda step: 0.5 * jnp.asarray(step, float))
    grads = {"w": jnp.ones(2), "hole": None}
    state = tx.init(grads)
    for count in range(3):
        updates, state = tx.update(grads, state)
        np.testing.assert_array_equal(updates["w"], [-0.5 * count] * 2)
    updates, _ = tx.update(grads, state, step=jnp.int32(8))
    np.testing.assert_array_equal(updates["w"], [-4.0] * 2)
    half = {"w": jnp.ones(2, jnp.bfloat16)}
    assert tx.update(half, state)[0]["w"].dtype == jnp.bfloat16


def test_learning_rate_equals_optax():
    schedule = make_schedule("cosine", PEAK, num_steps=STEPS)
    ours, theirs = (
        scale_by_learning_rate(schedule),
        optax.scale_by_learning_rate(schedule),
    )
    grads = {"w": jnp.array([1.0, -2.0])}
    states = ours.init(grads), theirs.init(grads)
    for _ in range(3):
        (a, left), (b, right) = (
            tx.update(grads, s) for tx, s in zip((ours, theirs), states, strict=True)
        )
        states = left, right
        np.testing.assert_allclose(a["w"], b["w"], rtol=1e-6)
