# SPDX-License-Identifier: Apache-2.0
"""With which numbers? New ones, a checkpoint's, or the one merged into the other."""

from jft.params.init import abstract_params, init_params

__all__ = ["abstract_params", "init_params"]
