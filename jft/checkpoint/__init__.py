# SPDX-License-Identifier: Apache-2.0
"""How is it kept? Checkpoints that are whole, verified, and say what they are.

It also answers where a run starts, and carries the request to stop.
"""

from jft.checkpoint.manager import Checkpoints, Restored
from jft.checkpoint.manifest import (
    CheckpointError,
    CorruptError,
    Leaf,
    Manifest,
    differences,
    json_digest,
    tree_digest,
)
from jft.checkpoint.signals import StopSignal
from jft.checkpoint.start import Start, choose_start
from jft.checkpoint.state import state_arrays, with_arrays

__all__ = [
    "CheckpointError",
    "Checkpoints",
    "CorruptError",
    "Leaf",
    "Manifest",
    "Restored",
    "Start",
    "StopSignal",
    "choose_start",
    "differences",
    "json_digest",
    "state_arrays",
    "tree_digest",
    "with_arrays",
]
