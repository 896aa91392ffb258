# SPDX-License-Identifier: Apache-2.0
"""With which numbers? New ones, a checkpoint's, or the one merged into the other."""

from jft.params.average import Soup, greedy_soup, interpolate, uniform_soup
from jft.params.hub import ADAPTER_FILES, find_folder
from jft.params.init import abstract_params, init_params
from jft.params.keys import checkpoint_keys, find_keys
from jft.params.layout import from_tensor, to_key, to_tensor
from jft.params.merge import MergeReport, merge
from jft.params.pretrained import (
    StoredTensor,
    Unread,
    load_pretrained,
    read_config,
    read_keys,
    read_optional,
)

__all__ = [
    "ADAPTER_FILES",
    "MergeReport",
    "Soup",
    "StoredTensor",
    "Unread",
    "abstract_params",
    "checkpoint_keys",
    "find_folder",
    "find_keys",
    "from_tensor",
    "greedy_soup",
    "init_params",
    "interpolate",
    "load_pretrained",
    "merge",
    "read_config",
    "read_keys",
    "read_optional",
    "to_key",
    "to_tensor",
    "uniform_soup",
]
