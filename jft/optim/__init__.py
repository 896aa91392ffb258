# SPDX-License-Identifier: Apache-2.0
"""How do they move? Schedules, layer-wise decay, unfreezing, anchors, the one chain."""

from jft.optim.anchor import (
    AnchorState,
    anchor_of,
    hold_anchor,
    l2_sp,
    strength_by_rule,
)
from jft.optim.auto_rgn import AutoRgnState, auto_rgn
from jft.optim.chain import default_decay_mask, make_optimizer
from jft.optim.ema import EmaState, ema_params, track_ema
from jft.optim.evaluation import eval_params
from jft.optim.ewc import EwcState, ewc, penalty_of, with_fisher
from jft.optim.layerwise import PRESETS, layer_multiplier, layerwise_lr_decay
from jft.optim.multipliers import scale_by_label
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
from jft.optim.optimizers import OPTIMIZERS, OptimizerRule
from jft.optim.sam import SamState, sam
from jft.optim.schedules import (
    SCHEDULES,
    follow_schedule,
    make_schedule,
    scale_by_learning_rate,
)
from jft.optim.swa import SwaState, swa_params, track_swa
from jft.optim.unfreeze import (
    CloseGradientsState,
    GradualUnfreezeState,
    close_gradients,
    gradual_unfreeze,
)

__all__ = [
    "OPTIMIZERS",
    "PRESETS",
    "SCHEDULES",
    "AnchorState",
    "AutoRgnState",
    "CloseGradientsState",
    "EmaState",
    "EwcState",
    "GradualUnfreezeState",
    "OpenAt",
    "OptimizerRule",
    "SamState",
    "SwaState",
    "Windows",
    "all_open",
    "anchor_of",
    "auto_rgn",
    "chain_thaw",
    "close_gradients",
    "default_decay_mask",
    "ema_params",
    "eval_params",
    "ewc",
    "follow_schedule",
    "gradual_unfreeze",
    "hold_anchor",
    "is_open",
    "l2_sp",
    "layer_multiplier",
    "layerwise_lr_decay",
    "lp_ft",
    "make_optimizer",
    "make_schedule",
    "normalize_open_at",
    "penalty_of",
    "plateau_opening",
    "sam",
    "scale_by_label",
    "scale_by_learning_rate",
    "strength_by_rule",
    "swa_params",
    "top_down",
    "track_ema",
    "track_swa",
    "with_fisher",
]
