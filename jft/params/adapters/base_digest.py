# SPDX-License-Identifier: Apache-2.0
"""Which base an adapter belongs to: a digest of the numbers that it leaves alone.

A base has one digest in float32, in bfloat16, and quantised from either; another model
of the same shapes has another.
"""

import functools
import hashlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

from jft.params.leaf_digest import describe_leaf
from jft.params.quantised import is_quantised, source_of

BaseDigest = Callable[[Collection[str]], str | None]


def make_base_digest(flat: Mapping[str, Any]) -> BaseDigest:
    """Make a function that says what a base is; each leaf is hashed once, when asked.

    Args:
      flat: the base's parameters by path, a quantised matrix as one.

    Returns:
      ``digest(without)``, the hexadecimal SHA-256 over all leaves but those paths:
      what moved with an adapter, and heads. Of a quantised matrix it reads what that
      was before. It is None where leaves are kept, or were quantised from, a dtype
      that says less than bfloat16, so that nothing could be compared.
    """

    @functools.cache
    def describe(path: str) -> str | None:
        leaf = flat[path]
        return source_of(leaf) if is_quantised(leaf) else describe_leaf(leaf)

    def digest(without: Collection[str]) -> str | None:
        lines = []
        for path in sorted(flat.keys() - set(without)):
            told = describe(path)
            if told is None:
                return None
            lines.append(f"{path} {told}\n")
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    return digest
