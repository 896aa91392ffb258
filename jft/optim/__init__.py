# SPDX-License-Identifier: Apache-2.0
"""How do they move? Schedules, layer-wise decay, unfreezing, anchors, the one chain."""

from jft.optim.anchor import anchor_of, hold_anchor, l2_sp, strength_by_rule
from jft.optim.auto_rgn import auto_rgn
from jft.optim.averages import track_ema, track_swa
from jft.optim.chain import default_decay_mask, make_optimizer
from jft.optim.evaluation import eval_params
from jft.optim.ewc import ewc, penalty_of, with_fisher
from jft.optim.multipliers import (
    PRESETS,
    label_multiplier,
    layer_multiplier,
    product,
    scale_by_path,
)
from jft.optim.openings import (
    OpenAt,
    Windows,
    all_open,
    chain_thaw,
    is_open,
    lp_ft,
    normalize_open_at,
    plateau_opening,
    top_down,
)
from jft.optim.optimizers import OPTIMIZERS
from jft.optim.sam import sam
from jft.optim.schedules import (
    SCHEDULES,
    follow_schedule,
    make_schedule,
    scale_by_learning_rate,
)
from jft.optim.unfreeze import close_gradients, gradual_unfreeze

__all__ = [
    "OPTIMIZERS",
    "PRESETS",
    "SCHEDULES",
    "OpenAt",
    "Windows",
    "all_open",
    "anchor_of",
    "auto_rgn",
    "chain_thaw",
    "close_gradients",
    "default_decay_mask",
    "eval_params",
    "ewc",
    "follow_schedule",
    "gradual_unfreeze",
    "hold_anchor",
    "is_open",
    "l2_sp",
    "label_multiplier",
    "layer_multiplier",
    "lp_ft",
    "make_optimizer",
    "make_schedule",
    "normalize_open_at",
    "penalty_of",
    "plateau_opening",
    "product",
    "sam",
    "scale_by_learning_rate",
    "scale_by_path",
    "strength_by_rule",
    "top_down",
    "track_ema",
    "track_swa",
    "with_fisher",
]
