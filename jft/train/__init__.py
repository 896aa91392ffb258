# SPDX-License-Identifier: Apache-2.0
"""One step, many steps: state, losses, step, phases, sharding, hooks, `fit`."""

from jft.train.activations import ActivationCache, Rows, is_one_array
from jft.train.boundaries import Stretch, choose_boundaries, plan_boundaries
from jft.train.choice import choose_step
from jft.train.chunked_loss import Chunks
from jft.train.collectives import Collectives, count_collectives
from jft.train.compile_cache import keep_compiled
from jft.train.compiled_step import CompiledStep, OpenGroups, TrainStep
from jft.train.contrastive import (
    cosine_regression,
    cosine_similarity,
    in_batch_contrastive,
)
from jft.train.distill import distillation_loss
from jft.train.divergence import DIVERGENCES, DivergenceFn
from jft.train.eval_step import make_eval_step
from jft.train.fisher import DRAWS, diagonal_fisher
from jft.train.hooks import (
    NonFiniteError,
    ProgressBar,
    best_record,
    evaluate_every,
    log_metrics,
    save_best,
    save_every,
    stop_early,
    stop_on_nonfinite,
)
from jft.train.loop import FitResult, History, Hook, Moment, PhaseReport, Record, fit
from jft.train.losses import (
    balanced_class_weights,
    count_correct,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
    span_cross_entropy,
    squared_error,
)
from jft.train.lwf import lwf_loss
from jft.train.memory import (
    MemoryPlan,
    bytes_on_a_device,
    check_memory,
    describe_memory,
    device_bytes,
    plan_memory,
)
from jft.train.mixout import mixout
from jft.train.phases import Phase, groups_at, phases
from jft.train.pmap import (
    make_pmap_train_step,
    replicate,
    split_over_devices,
    unreplicate,
)
from jft.train.r_drop import make_r_drop, on_first_draw
from jft.train.replay import on_replayed, replay_loss
from jft.train.sharding import (
    batch_sharding,
    check_batch_size,
    make_mesh,
    num_shares,
    param_shardings,
    place,
    place_state,
    shard_batch,
    state_shardings,
)
from jft.train.state import TrainState, cast_floating, init_state
from jft.train.step import make_train_step
from jft.train.two_heads import (
    REPLAYED,
    BothHeads,
    ask_about_replayed,
    ask_both_heads,
    make_old_forward,
    on_new_head,
    with_replayed_prefix,
)

__all__ = [
    "DIVERGENCES",
    "DRAWS",
    "REPLAYED",
    "ActivationCache",
    "BothHeads",
    "Chunks",
    "Collectives",
    "CompiledStep",
    "DivergenceFn",
    "FitResult",
    "History",
    "Hook",
    "MemoryPlan",
    "Moment",
    "NonFiniteError",
    "OpenGroups",
    "Phase",
    "PhaseReport",
    "ProgressBar",
    "Record",
    "Rows",
    "Stretch",
    "TrainState",
    "TrainStep",
    "ask_about_replayed",
    "ask_both_heads",
    "balanced_class_weights",
    "batch_sharding",
    "best_record",
    "bytes_on_a_device",
    "cast_floating",
    "check_batch_size",
    "check_memory",
    "choose_boundaries",
    "choose_step",
    "cosine_regression",
    "cosine_similarity",
    "count_collectives",
    "count_correct",
    "describe_memory",
    "device_bytes",
    "diagonal_fisher",
    "distillation_loss",
    "evaluate_every",
    "fit",
    "groups_at",
    "in_batch_contrastive",
    "init_state",
    "is_one_array",
    "keep_compiled",
    "log_metrics",
    "lwf_loss",
    "make_eval_step",
    "make_mesh",
    "make_old_forward",
    "make_pmap_train_step",
    "make_r_drop",
    "make_train_step",
    "mixout",
    "num_shares",
    "on_first_draw",
    "on_new_head",
    "on_replayed",
    "param_shardings",
    "phases",
    "place",
    "place_state",
    "plan_boundaries",
    "plan_memory",
    "replay_loss",
    "replicate",
    "save_best",
    "save_every",
    "shard_batch",
    "sigmoid_cross_entropy",
    "softmax_cross_entropy",
    "span_cross_entropy",
    "split_over_devices",
    "squared_error",
    "state_shardings",
    "stop_early",
    "stop_on_nonfinite",
    "unreplicate",
    "with_replayed_prefix",
]
