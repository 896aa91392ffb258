# SPDX-License-Identifier: Apache-2.0
"""Which base an adapter belongs to: a digest of the numbers that it leaves alone.

Numbers are rounded to bfloat16 first, so a base has one digest in whichever of float32
and bfloat16 it was loaded, and another model of the same shapes has another.
"""

import functools
import hashlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

BaseDigest = Callable[[Collection[str]], str | None]


def make_base_digest(flat: Mapping[str, Any]) -> BaseDigest:
    """Make a function that says what a base is; each leaf is hashed once, when asked.

    Args:
      flat: the base's parameters by path.

    Returns:
      ``digest(without)``, the hexadecimal SHA-256 over all leaves but those paths:
      what moved with an adapter, and heads. It is None where leaves are kept in a dtype
      that says less than bfloat16, so that nothing could be compared.
    """

    @functools.cache
    def leaf_digest(path: str) -> str:
        array = np.asarray(jax.device_get(flat[path]))
        rounded = np.ascontiguousarray(array.astype(jnp.bfloat16))
        return hashlib.sha256(rounded.reshape(-1).view(np.uint8).data).hexdigest()

    def digest(without: Collection[str]) -> str | None:
        paths = sorted(flat.keys() - set(without))
        if not all(_keeps_bfloat16(flat[path].dtype) for path in paths):
            return None
        lines = (f"{p} {list(flat[p].shape)} {leaf_digest(p)}\n" for p in paths)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    return digest


def _keeps_bfloat16(dtype: Any) -> bool:
    """Whether rounding from it is rounding from what was in the checkpoint."""
    return jnp.dtype(dtype) in (jnp.bfloat16, np.float32, np.float64)
