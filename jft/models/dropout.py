# SPDX-License-Identifier: Apache-2.0
"""Dropout whose mask is a hash of position and key, so that it costs next to nothing.

A mask needs no cryptography: jax's generator takes some forty times as long on a CPU,
a fifth of a training step of BERT. Here each element's 32 bits are a function of its
index and the key alone. They do not depend on devices or sharding, and XLA fuses them
into whatever reads the mask; nothing need be stored for the backward pass. The keys of
the modules are hashes of that of the step: jax's own way from one to the other is a
loop of its own in the program, one a module, which takes longer to compile than to run.

Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from
Overfitting". The hash is that of Wellons, "Prospecting for Hash Functions" (2018),
https://nullprogram.com/blog/2018/07/31/, taken twice, each time with a word of the key.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.extend.random import define_prng_impl

from jft.types import InputError


class Dropout(nn.Module):
    """Zero each value with probability ``rate`` and scale up the rest."""

    rate: float

    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        """Map an array to one of its shape; ``deterministic`` returns it as it is."""
        words = self.words(deterministic)
        return x if words is None else drop(x, words, rate=self.rate)

    def words(self, deterministic: bool) -> jax.Array | None:
        """What `drop` needs, for dropout inside another product; None: no dropout."""
        if deterministic or self.rate == 0.0:
            return None
        return random_words(self.make_rng("dropout"))


def dropout(x: jax.Array, rate: float, *, deterministic: bool) -> jax.Array:
    """`Dropout` as a function, called inside a compact method."""
    return Dropout(rate)(x, deterministic)


def hashed_key(key: jax.Array) -> jax.Array:
    """Make a key whose descendants are hashes of it, for ``rngs={"dropout": …}``."""
    words = jax.random.bits(key, (2,), jnp.uint32)
    return jax.random.wrap_key_data(words, impl=HASHED)


def random_words(key: jax.Array) -> jax.Array:
    """The two words of a key that a mask is drawn with: ``uint32 [2]``."""
    if jax.random.key_impl(key) == HASHED:
        return jax.random.key_data(key)
    return jax.random.bits(key, (2,), jnp.uint32)


@functools.partial(jax.jit, static_argnames="rate")  # traced once a shape
def drop(x: jax.Array, words: jax.Array, *, rate: float) -> jax.Array:
    """Zero each value with probability ``rate``; divide the rest by ``1 - rate``."""
    if rate >= 1.0:
        return jnp.zeros_like(x)
    scale = jnp.asarray(1.0 / (1.0 - rate), x.dtype)
    return jnp.where(keep_mask(words, x.shape, rate=rate), x * scale, jnp.zeros_like(x))


def keep_mask(words: jax.Array, shape: tuple[int, ...], *, rate: float) -> jax.Array:
    """Where a value stays: boolean, True with probability ``1 - rate``.

    Args:
      words: as `random_words` makes them.
      shape: of the mask; from 2^32 values on, it repeats itself.
      rate: at least 0 and below 1, kept to within 2^-32.

    Returns:
      The mask, the same for the same words on any number of devices.

    Raises:
      InputError: for a rate out of range.

    Example:
      >>> words = random_words(jax.random.key(0))
      >>> round(float(keep_mask(words, (1000, 1000), rate=0.1).mean()), 2)
      0.9
    """
    if not 0.0 <= rate < 1.0:
        raise InputError(f"the dropout rate is {rate}; expected 0 <= rate < 1.")
    return _bits(words, shape) >= jnp.uint32(min(round(rate * 2**32), 2**32 - 1))


def _bits(words: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """A hash of each position and the words: ``uint32``."""
    index = jnp.zeros(shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        along = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        index = index + along * jnp.asarray(np.uint32(stride % 2**32))
        stride *= shape[axis]
    return _hash(_hash(index ^ words[0]) ^ words[1])


def _fold_in(words: jax.Array, data: int | jax.Array) -> jax.Array:
    """Two words of two words and a number, such as the digest of a module's path."""
    spread = jnp.uint32(data) * jnp.asarray([1, 0x9E3779B9], jnp.uint32)
    return _hash(_hash(words ^ spread) ^ words[::-1])


def _split(words: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    first = _bits(words, shape)
    return jnp.stack([first, _hash(first ^ words[0])], axis=-1)


def _random_bits(words: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    if bit_width == 64:
        raise InputError("keys of dropout draw at most 32 bits a number; asked for 64.")
    return _bits(words, shape).astype(f"uint{bit_width}")


def _hash(x: jax.Array) -> jax.Array:
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


# a kind of key for jax.random, whose fold_in is a few operations
HASHED = define_prng_impl(
    key_shape=(2,),
    seed=lambda seed: _fold_in(jnp.zeros(2, jnp.uint32), seed),
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name="hashed",
    tag="hsh",
)
