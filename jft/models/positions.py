# SPDX-License-Identifier: Apache-2.0
"""Vectors for positions: learned, or sinusoids (Vaswani et al. 2017)."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jft.models.layers import Init
from jft.types import InputError


def check_length(length: int, most: int) -> None:
    """Refuse a text that has more tokens than the table has positions.

    Raises:
      InputError: when the forward is traced.
    """
    if length > most:
        raise InputError(
            f"a text of {length} tokens is longer than this model's {most} positions "
            "(max_position_embeddings). Cut it, padding included."
        )


class LearnedPositions(nn.Module):
    """A table whose first two rows are never used."""

    num_positions: int
    width: int
    init: Init

    def setup(self) -> None:
        """Make the table ``[P + 2, D]``."""
        shape = (self.num_positions + 2, self.width)
        self.embedding = self.param("embedding", self.init, shape)

    def __call__(self, positions: jax.Array) -> jax.Array:
        """Map ``[L]`` to ``[L, D]``."""
        return jnp.take(self.embedding, positions + 2, axis=0, mode="clip")


def sinusoids(num_positions: int, width: int) -> np.ndarray:
    """Sines, then cosines, of positions at geometric wavelengths: ``[P, D]``."""
    rates = 10000.0 ** (-np.arange(0, width, 2) / width)
    angles = np.arange(num_positions)[:, None] * rates
    waves = [np.sin(angles), np.cos(angles[:, : width // 2])]
    return np.concatenate(waves, axis=1).astype(np.float32)


class SinusoidalPositions(nn.Module):
    """Sinusoids; ``stored`` ones are a leaf, which is never trained."""

    num_positions: int
    width: int
    stored: bool

    @nn.compact
    def __call__(self, positions: jax.Array) -> jax.Array:
        """Map ``[L]`` to ``[L, D]``."""
        table = jnp.asarray(sinusoids(self.num_positions, self.width))
        if self.stored:
            table = self.param("embedding", lambda key: table)
        table = jax.lax.stop_gradient(table)
        return jnp.take(table, positions, axis=0, mode="clip")
