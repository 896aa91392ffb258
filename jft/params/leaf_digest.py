# SPDX-License-Identifier: Apache-2.0
"""What a parameter was when it was read: its shape, and a digest of its numbers.

Numbers are rounded to bfloat16 first, so that a leaf has one digest in whichever of
float32 and bfloat16 it was loaded.
"""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def describe_leaf(leaf: Any) -> str | None:
    """Say ``"[768, 768] 5e88…"``: the shape and the hexadecimal SHA-256 of a leaf.

    None where its dtype says less than bfloat16, or there are no numbers yet, while
    jax traces: nothing could be compared.
    """
    if isinstance(leaf, jax.core.Tracer) or not _keeps_bfloat16(leaf.dtype):
        return None
    array = np.asarray(jax.device_get(leaf)).astype(jnp.bfloat16)
    numbers = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return f"{list(array.shape)} {hashlib.sha256(numbers.data).hexdigest()}"


def _keeps_bfloat16(dtype: Any) -> bool:
    """Whether rounding from it is rounding from what was in the checkpoint."""
    return jnp.dtype(dtype) in (jnp.bfloat16, np.float32, np.float64)
