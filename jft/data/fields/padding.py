# SPDX-License-Identifier: Apache-2.0
"""How rows of different lengths form a batch."""

from typing import NamedTuple

# of a token without a target; torch's cross-entropy leaves the same number out
IGNORED = -100


class Pad(NamedTuple):
    """What fills a field up, and which fields it shares its length with."""

    value: int
    group: str = "input"  # fields of a group are of one length in each row
