# SPDX-License-Identifier: Apache-2.0
"""With which numbers? New ones, a checkpoint's, or the one merged into the other."""

from jft.params.init import abstract_params, init_params
from jft.params.layout import from_tensor, to_key, to_tensor
from jft.params.merge import MergeReport, merge
from jft.params.pretrained import (
    Unread,
    load_pretrained,
    read_config,
    read_processor_config,
)

__all__ = [
    "MergeReport",
    "Unread",
    "abstract_params",
    "from_tensor",
    "init_params",
    "load_pretrained",
    "merge",
    "read_config",
    "read_processor_config",
    "to_key",
    "to_tensor",
]
