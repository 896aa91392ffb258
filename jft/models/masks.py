# SPDX-License-Identifier: Apache-2.0
"""Who may look at whom: the mask of an attention, and what it is known to be."""

import functools
from dataclasses import dataclass
from typing import Any

import jax


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["allowed", "keys"],
    meta_fields=["causal", "window", "complete"],
)
@dataclass(frozen=True, kw_only=True)
class Mask:
    """Where a query may look at a key, as an array, and what is known in advance.

    ``allowed`` says all. The rest is for kernels that leave out what is not looked at.
    A row of ``allowed`` that is false everywhere mixes all values alike: it is a
    query's that is padding, and nothing reads what it finds.
    """

    allowed: Any  # bool [B or 1, 1, L or 1, S], true where l may look at s
    causal: bool = False  # L = S, and no query looks behind itself
    window: int | None = None  # with causal: how many tokens a query sees at most
    keys: Any = None  # bool [B, S], false at padding, which none sees
    complete: bool = False  # causal, window and keys say all that ``allowed`` says
