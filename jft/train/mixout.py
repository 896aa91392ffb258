# SPDX-License-Identifier: Apache-2.0
"""Mixout: in each training step some weights are the pre-trained ones again."""

import zlib
from typing import Any

import jax
import jax.numpy as jnp

from jft import paths
from jft.types import InputError, Params


def mixout(
    params: Params, anchor: Params, *, probability: float, key: jax.Array
) -> Params:
    """Replace weights by those they started from, and keep the expectation.

    ``(m w0 + (1 - m) w - p w0) / (1 - p)`` with ``m`` 1 with probability ``p``, for
    each weight on its own, which is ``w0 + (1 - m) (w - w0) / (1 - p)``: computed so,
    weights that have not moved yet stay exactly where they are. With ``w0`` 0 it is
    dropout of weights. Lee, Cho and Kang 2019, "Mixout: effective regularization to
    finetune large-scale pretrained language models", arXiv 1909.11299; the paper takes
    it in the place of dropout.

    Args:
      params: the current parameters; None where there is nothing to mix.
      anchor: their start; leaves that it lacks, such as a new head, are left alone.
      probability: ``p`` in [0, 1), that a weight is the old one.
      key: of the draws; a leaf's depends on it and on the leaf's path alone.

    Returns:
      A tree like ``params``.

    Raises:
      InputError: if the probability is not in [0, 1).
    """
    if not 0 <= probability < 1:
        raise InputError(
            f"the probability of mixout is {probability}; expected a number in [0, 1): "
            "at 1 nothing would be learned."
        )
    if not probability:
        return params

    def mix(path: str, leaf: Any, start: Any) -> Any:
        here = jax.random.fold_in(key, zlib.crc32(path.encode()))
        moved = jax.random.bernoulli(here, 1 - probability, leaf.shape)
        away = (leaf - start) * (1 / (1 - probability))
        return start + jnp.where(moved, away, jnp.zeros_like(away))

    return paths.map_where(mix, params, anchor)
