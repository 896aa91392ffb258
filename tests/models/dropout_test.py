# SPDX-License-Identifier: Apache-2.0
"""A hashed mask is as good as independent draws, and the same on any devices."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jft.models.dropout import Dropout, drop, hashed_key, keep_mask, random_words
from jft.types import InputError

SHAPE = (16, 12, 64, 64)


def mask(seed, rate, shape=SHAPE):
    return np.asarray(keep_mask(random_words(jax.random.key(seed)), shape, rate=rate))


def assert_uncorrelated(a, b):
    """Within five standard deviations of what independent draws show."""
    a, b = a.ravel() - a.mean(), b.ravel() - b.mean()
    correlation = (a * b).mean() / (a.std() * b.std())
    assert abs(correlation) < 5 / np.sqrt(a.size)


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5, 0.9])
def test_the_rate_is_kept(rate):
    """In the whole, and in each row and column as often as chance has it."""
    kept = mask(0, rate)
    sd = np.sqrt(rate * (1 - rate))
    assert abs(kept.mean() - (1 - rate)) < 5 * sd / np.sqrt(kept.size)
    for axes in ((0,), (0, 1), (1, 2), (2, 3), (0, 1, 2), (0, 1, 3)):
        means = kept.mean(axis=axes)
        scores = (means - (1 - rate)) / sd * np.sqrt(kept.size / means.size)
        if kept.size / means.size * min(rate, 1 - rate) > 20:  # else not normal
            assert 0.8 < scores.std() < 1.2
            assert np.abs(scores).max() < 6


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 63, 64, 65, 127, 128, 4096, 12 * 4096])
def test_neighbours_are_independent(lag):
    kept = mask(1, 0.5).ravel()
    assert_uncorrelated(kept[lag:], kept[:-lag])


def test_patterns_of_eight_are_equally_frequent():
    """Chi-squared of 255 degrees of freedom."""
    kept = mask(2, 0.5).reshape(-1, 8)
    counts = np.bincount(np.packbits(kept, axis=1)[:, 0], minlength=256)
    expected = len(kept) / 256
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_squared - 255) < 5 * np.sqrt(2 * 255)


def hashed_family(key):
    """What modules and blocks make of a step's key: children and theirs."""
    children = [jax.random.fold_in(key, i) for i in (0, 1, 2, 2**31)]
    grandchildren = [jax.random.fold_in(child, 0) for child in children[:2]]
    return [*children, *grandchildren, *jax.random.split(key, 3)]


def test_hashed_keys_draw_as_other_keys_do():
    key = hashed_key(jax.random.key(5))
    drawn = np.asarray(jax.random.uniform(key, (100_000,)))
    counts = np.histogram(drawn, bins=64, range=(0, 1))[0]
    expected = drawn.size / 64
    assert abs(((counts - expected) ** 2 / expected).sum() - 63) < 5 * np.sqrt(2 * 63)
    many = jnp.stack([random_words(k) for k in jax.random.split(key, 1000)])
    assert len(np.unique(np.asarray(many), axis=0)) == 1000


def test_no_key_of_a_module_is_a_loop_in_the_program():
    """One for the step's key, and none for each of four modules."""

    class Four(nn.Module):
        @nn.compact
        def __call__(self, x):
            for _ in range(4):
                x = Dropout(0.5)(x, False)
            return x

    def run(key):
        return Four().apply({}, jnp.ones((8, 8)), rngs={"dropout": hashed_key(key)})

    text = jax.jit(run).lower(jax.random.key(0)).as_text()
    assert len(re.findall(r"call @threefry2x32", text)) <= 1


def test_keys_are_independent():
    """Neighbouring keys and keys of a split; also words that differ in one bit."""
    keys = [jax.random.key(i) for i in range(4)]
    keys += list(jax.random.split(jax.random.key(0), 4))
    keys += hashed_family(hashed_key(jax.random.key(0)))
    words = [random_words(key) for key in keys]
    words += [words[0] ^ jnp.array([1, 0], jnp.uint32)]
    words += [words[0] ^ jnp.array([0, 1], jnp.uint32)]
    words += [words[0] ^ jnp.array([1 << 31, 0], jnp.uint32)]
    masks = [np.asarray(keep_mask(w, SHAPE, rate=0.5)) for w in words]
    for a, b in itertools.combinations(masks, 2):
        assert_uncorrelated(a, b)


@pytest.mark.parametrize("num_devices", [2, 4])
def test_devices_do_not_change_a_mask(num_devices):
    mesh = Mesh(np.array(jax.devices()[:num_devices]), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    make = jax.jit(lambda words: keep_mask(words, SHAPE, rate=0.3))
    sharded = jax.jit(
        lambda words: keep_mask(words, SHAPE, rate=0.3), out_shardings=sharding
    )
    words = random_words(jax.random.key(3))
    assert len(sharded(words).addressable_shards) == num_devices
    np.testing.assert_array_equal(make(words), sharded(words))
    np.testing.assert_array_equal(make(words), keep_mask(words, SHAPE, rate=0.3))


def test_what_stays_is_scaled_and_alone_has_a_gradient():
    x = jnp.full((1000,), 2.0)
    words = random_words(jax.random.key(4))
    kept = keep_mask(words, x.shape, rate=0.2)
    y, vjp = jax.vjp(lambda x: drop(x, words, rate=0.2), x)
    np.testing.assert_allclose(y, jnp.where(kept, 2.5, 0.0))
    np.testing.assert_allclose(vjp(jnp.ones_like(y))[0], jnp.where(kept, 1.25, 0.0))


def test_the_ends_of_the_range():
    x = jnp.ones((64, 64))
    rngs = {"dropout": jax.random.key(0)}
    np.testing.assert_array_equal(Dropout(0.0).apply({}, x, False), x)
    np.testing.assert_array_equal(Dropout(0.5).apply({}, x, True), x)
    np.testing.assert_array_equal(Dropout(1.0).apply({}, x, False, rngs=rngs), 0 * x)
    with pytest.raises(InputError, match=r"rate is 1\.5"):
        keep_mask(random_words(rngs["dropout"]), (2,), rate=1.5)
