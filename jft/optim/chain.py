# SPDX-License-Identifier: Apache-2.0
"""The one optimizer chain, in the one order that keeps every part's meaning."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from jft import paths
from jft.optim.anchor import Strength, hold_anchor
from jft.optim.anchor import l2_sp as make_l2_sp
from jft.optim.auto_rgn import auto_rgn as make_auto_rgn
from jft.optim.averages import track_ema, track_swa
from jft.optim.clip import clip_by_global_norm
from jft.optim.ewc import ewc as make_ewc
from jft.optim.multipliers import Multiplier, scale_by_path
from jft.optim.openings import OpenAt
from jft.optim.optimizers import (
    OPTIMIZERS,
    OptimizerRule,
    make_direction,
    make_wrapped,
)
from jft.optim.schedules import scale_by_learning_rate
from jft.optim.unfreeze import close_gradients, gradual_unfreeze
from jft.types import FROZEN, InputError, LayerIndex, ParamLabels, Params, Schedule

LeafMask = Callable[[str, Any], bool]  # (path, leaf) -> whether it applies

# What timm never decays in vision transformers, and a buffer of BART's.
NEVER_DECAYED = re.compile(
    "(.*/)?(bias|scale|pos_embed|position_embeddings|final_logits_bias"
    "|(cls|dist|distillation|mask|reg)_token|register_tokens)"
)


def default_decay_mask(path: str, leaf: Any) -> bool:
    """Say whether weight decay applies: to weights, not to biases, norms, positions.

    >>> import numpy as np
    >>> default_decay_mask("head/kernel", np.zeros((2, 2)))
    True
    >>> default_decay_mask("embeddings/position_embeddings", np.zeros((1, 5, 2)))
    False
    """
    return leaf.ndim > 1 and not NEVER_DECAYED.fullmatch(path)


def make_optimizer(
    param_labels: ParamLabels,
    *,
    optimizer: str | optax.GradientTransformation = "adamw",
    learning_rate: float | Schedule | None,
    hyperparams: Mapping[str, Any] | None = None,
    weight_decay: float = 0.0,
    decay_mask: LeafMask = default_decay_mask,
    l2_sp: Strength = 0.0,
    ewc: float = 0.0,
    anchor_mask: LeafMask | None = None,
    keep_anchor: bool = False,
    clip_norm: float | None = None,
    multiplier: Multiplier | None = None,
    layer_index: LayerIndex | None = None,
    auto_rgn: int | None = None,
    auto_rgn_batches: int = 5,
    open_at: OpenAt | None = None,
    ema_decay: float | None = None,
    swa: tuple[int, int] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Make the whole optimizer of a fine-tuning run.

    The order, and why: EWC's penalty adds to the gradients; those of closed groups are
    zeroed, so that the clip norm is that of what moves; moments, decay and anchor are
    inside the gate, so that closed groups have none of them; the multiplier follows the
    moments, which would cancel it; the learning rate multiplies everything once, decay
    included, on global steps; the average sees final updates; frozen leaves are kept
    out of it all, and set to zero as the second lock, by the outermost transform.

    Works on full trees and on trees with None where frozen, of any pytree type. With
    ``open_at``, ``update`` takes ``open_groups`` (see ``gradual_unfreeze``).

    What keeps the starting point (anchors, averages, SAM, schedule-free) keeps the
    parameters' own arrays. `jft.train.init_state` copies them; whoever donates
    parameters and state to a step of their own does so too, by
    ``jax.tree.map(jnp.copy, tx.init(params))``.

    Args:
      param_labels: one string a leaf; "frozen" leaves get no state and no update.
      optimizer: a key of ``OPTIMIZERS``, or an optax transform: of a direction alone,
        such as ``optax.scale_by_adam()``, or a whole one, without ``learning_rate``.
      learning_rate: a number or a schedule of global steps; None says that the given
        transform is complete, with sign and learning rate inside.
      hyperparams: keyword values of the named optimizer.
      weight_decay: decoupled, times the learning rate; where the optimizer's paper
        has it.
      decay_mask: which leaves decay.
      l2_sp: strength of the pull to the starting point, at the place of the decay; a
        number, or a function of the path.
      ewc: strength of the pull by Fisher information, which `with_fisher` has to put
        into the state before the first step.
      anchor_mask: which leaves these two pull, and ``keep_anchor`` keeps; None is all.
        A new head has no start worth keeping: leave it out.
      keep_anchor: keep the starting point in the state though nothing here pulls to
        it, for `jft.train.mixout`; L2-SP of one strength keeps it anyway.
      clip_norm: largest global norm of the open gradients.
      multiplier: path to factor of the learning rate: `layer_multiplier`,
        `label_multiplier`, their `product`, or any other.
      layer_index: path to depth, what opens or is measured as one.
      auto_rgn: steps between two measures of each layer's relative gradient norm, by
        which its rate is scaled; see the function of that name.
      auto_rgn_batches: that such a measure is the mean over.
      open_at: layer to opening step or windows; None opens everything.
      ema_decay: keep an average of the trainables, read by ``eval_params``.
      swa: likewise the plain mean: ``(start, every)`` of `track_swa`.

    Returns:
      The optimizer; apply its updates by adding them.

    Raises:
      InputError: if arguments contradict each other, or nothing is trainable.
    """
    rule, hyperparams = _find_rule(optimizer), hyperparams or {}
    _check_whole(optimizer, learning_rate, decays=bool(weight_decay or l2_sp))
    _check_together(optimizer, rule, open_at, auto_rgn, ema_decay, swa)

    pull = _decay_and_anchor(weight_decay, decay_mask, l2_sp, anchor_mask)
    core = make_direction(rule, pull, hyperparams)
    shaping = [] if clip_norm is None else [clip_by_global_norm(clip_norm)]
    if auto_rgn is not None:
        # it measures whole gradients: a clip would weigh batches
        inner, shaping = optax.chain(*shaping, core), []
        core = make_auto_rgn(
            inner, layer_index, every=auto_rgn, batches=auto_rgn_batches
        )
    parts: list[optax.GradientTransformation] = []
    if ewc:
        parts.append(make_ewc(ewc, anchor_mask))
    if keep_anchor and (callable(l2_sp) or not l2_sp):
        parts.append(hold_anchor(anchor_mask))
    if open_at is not None:
        if layer_index is None:
            raise InputError("open_at needs layer_index: path to what opens as one.")
        parts.append(close_gradients(layer_index, open_at))
        core = gradual_unfreeze(core, layer_index, open_at)
    parts += [*shaping, core]
    if multiplier is not None:
        parts.append(scale_by_path(multiplier))
    if learning_rate is not None:
        parts.append(scale_by_learning_rate(learning_rate))
    if ema_decay is not None:
        parts.append(track_ema(ema_decay))
    if swa is not None:
        parts.append(track_swa(*swa))
    chain = optax.chain(*parts)
    if learning_rate is not None:
        chain = make_wrapped(rule, chain, learning_rate, hyperparams)
    return _promoting(_for_trainables(chain, param_labels))


def _for_trainables(
    chain: optax.GradientTransformation, param_labels: ParamLabels
) -> optax.GradientTransformationExtraArgs:
    """The chain for all that is not frozen; zeros, and no state, for what is."""
    labels = jax.tree.map(lambda x: x if x == FROZEN else "trainable", param_labels)
    if "trainable" not in jax.tree.leaves(labels):
        raise InputError(
            "every parameter is labelled frozen, so there is nothing to train; label "
            "some of them, a head for instance, with another name."
        )
    # by a function: optax takes a tree that can be called, a module, for one
    return optax.partition(
        {"trainable": chain, FROZEN: optax.set_to_zero()}, lambda _: labels
    )


def _promoting(
    tx: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """Let optax multiply floats by step counts where promotion is strict."""

    def init_fn(params: Params) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return tx.init(params)

    def update_fn(
        updates: Any, state: Any, params: Params = None, **extra_args: Any
    ) -> tuple[Any, Any]:
        with jax.numpy_dtype_promotion("standard"):
            result: tuple[Any, Any] = tx.update(updates, state, params, **extra_args)
        return result

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _find_rule(optimizer: str | optax.GradientTransformation) -> OptimizerRule:
    if isinstance(optimizer, str):
        if optimizer not in OPTIMIZERS:
            raise InputError(
                f"unknown optimizer {optimizer!r}; known: {sorted(OPTIMIZERS)}, or "
                "pass an optax.GradientTransformation."
            )
        return OPTIMIZERS[optimizer]
    return OptimizerRule(direction=lambda decay: optax.chain(optimizer, decay))


def _check_whole(
    optimizer: str | optax.GradientTransformation,
    learning_rate: float | Schedule | None,
    *,
    decays: bool,
) -> None:
    """Without a learning rate the transform must be complete, decay included."""
    if learning_rate is None and isinstance(optimizer, str):
        raise InputError(
            f"optimizer {optimizer!r} needs a learning_rate: a number or a schedule."
        )
    if learning_rate is None and decays:
        raise InputError(
            "weight_decay or l2_sp was given with learning_rate=None, which says that "
            "the optimizer is complete; put the decay into it, or pass a direction "
            "and a learning_rate."
        )


def _check_together(
    optimizer: str | optax.GradientTransformation,
    rule: OptimizerRule,
    open_at: OpenAt | None,
    auto_rgn: int | None,
    ema_decay: float | None,
    swa: tuple[int, int] | None,
) -> None:
    """Refuse pairs of which one would undo the other."""
    if ema_decay is not None and swa is not None:
        raise InputError(
            f"ema_decay is {ema_decay} and swa {swa}, two averages of which one is "
            "evaluated; leave one of them out."
        )
    if auto_rgn is not None and open_at is not None:
        raise InputError(
            f"auto_rgn is {auto_rgn} together with open_at: both say which layers "
            "move, and one that is closed has no gradient to measure. Drop one."
        )
    if rule.wrap is not None and open_at is not None:
        raise InputError(
            f"optimizer {optimizer!r} cannot open groups at steps: it moves all "
            "parameters together, between points of its own, so closed ones would "
            "not stay where they are. Drop open_at, or take another optimizer."
        )
    if rule.wrap is not None and (ema_decay is not None or swa is not None):
        raise InputError(
            f"optimizer {optimizer!r} with ema_decay or swa: the parameters it shows "
            "are not the ones it evaluates (see eval_params). Drop the average, or "
            "take another optimizer."
        )


def _decay_and_anchor(
    weight_decay: float,
    decay_mask: LeafMask,
    l2_sp: Strength,
    anchor_mask: LeafMask | None,
) -> optax.GradientTransformation:
    """What pulls parameters, towards zero and towards the start; often nothing."""
    parts = [optax.identity()]
    if weight_decay:
        parts.append(
            optax.add_decayed_weights(
                weight_decay, lambda tree: paths.map_with_path(decay_mask, tree)
            )
        )
    if l2_sp:
        parts.append(make_l2_sp(l2_sp, anchor_mask))
    return optax.chain(*parts)
