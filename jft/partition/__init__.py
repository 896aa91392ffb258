# SPDX-License-Identifier: Apache-2.0
"""Which numbers move? Labels, the split they imply, and a table that says so."""

from jft.partition.labels import (
    check_new_leaves_move,
    check_quantised_stay,
    is_trainable,
    label_of_paths,
    label_params,
    num_params,
)
from jft.partition.report import describe
from jft.partition.split import Partition, combine, split, split_by

__all__ = [
    "Partition",
    "check_new_leaves_move",
    "check_quantised_stay",
    "combine",
    "describe",
    "is_trainable",
    "label_of_paths",
    "label_params",
    "num_params",
    "split",
    "split_by",
]
