# SPDX-License-Identifier: Apache-2.0
"""One vector a text, of the vectors of its tokens.

The head ``base`` gives ``last_hidden_state [B, L, D]``; sentence encoders average it
over a text's tokens, most bring the mean to length 1, and compare texts by the dot
product. Reimers and Gurevych 2019, "Sentence-BERT", arXiv 1908.10084.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Num

from jft.models.arrays import at_least_float32

Array = jax.Array | np.ndarray
SHORTEST = 1e-12  # a vector of no length stays one


def mean_pool(
    hidden: Float[Array, "B L D"], attention_mask: Num[Array, "B L"]
) -> Float[jax.Array, "B D"]:
    """Average the vectors of each text's tokens; padding does not count.

    Args:
      hidden: a vector a token.
      attention_mask: 1 at tokens, 0 at padding.

    Returns:
      The means in the dtype of ``hidden``, summed in at least float32; zeros for a text
      without tokens.

    >>> mean_pool(np.array([[[2.0], [4.0], [9.0]]]), np.array([[1, 1, 0]])).tolist()
    [[3.0]]
    """
    hidden = jnp.asarray(hidden)
    wide = at_least_float32(hidden)
    real = jnp.asarray(attention_mask).astype(wide.dtype)[..., None]
    total = (wide * real).sum(axis=1)
    return (total / jnp.maximum(real.sum(axis=1), 1)).astype(hidden.dtype)


def to_unit_length(vectors: Float[Array, "*B D"]) -> Float[jax.Array, "*B D"]:
    """Divide each vector by its Euclidean length; zeros stay zeros.

    >>> to_unit_length(np.array([3.0, 4.0])).tolist()
    [0.6000000238418579, 0.800000011920929]
    """
    vectors = jnp.asarray(vectors)
    wide = at_least_float32(vectors)
    squared = jnp.square(wide).sum(axis=-1, keepdims=True)
    # not the root of 0, whose derivative is infinite
    return (wide * jax.lax.rsqrt(jnp.maximum(squared, SHORTEST**2))).astype(
        vectors.dtype
    )
