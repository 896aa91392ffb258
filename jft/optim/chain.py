# SPDX-License-Identifier: Apache-2.0
"""The one optimizer chain, in the one order that keeps every part's meaning."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from jft import paths
from jft.optim.anchor import Strength, hold_anchor
from jft.optim.anchor import l2_sp as make_l2_sp
from jft.optim.auto_rgn import auto_rgn as make_auto_rgn
from jft.optim.clip import clip_by_global_norm
from jft.optim.ema import track_ema
from jft.optim.ewc import ewc as make_ewc
from jft.optim.layerwise import layerwise_lr_decay
from jft.optim.multipliers import scale_by_label
from jft.optim.openings import OpenAt
from jft.optim.optimizers import (
    OPTIMIZERS,
    OptimizerRule,
    make_direction,
    make_wrapped,
)
from jft.optim.schedules import scale_by_learning_rate
from jft.optim.swa import track_swa
from jft.optim.unfreeze import close_gradients, gradual_unfreeze
from jft.types import FROZEN, InputError, LayerIndex, ParamLabels, Params, Schedule

LeafMask = Callable[[str, Any], bool]  # (path, leaf) -> whether it applies

# Parameters of vision transformers that timm never decays, by the last path key.
NEVER_DECAYED = frozenset(
    {
        *("bias", "scale"),
        *("cls_token", "dist_token", "distillation_token", "mask_token"),
        *("reg_token", "register_tokens", "pos_embed", "position_embeddings"),
        "final_logits_bias",  # BART's, a buffer
    }
)


def default_decay_mask(path: str, leaf: Any) -> bool:
    """Say whether weight decay applies: to weights, not to biases, norms, positions.

    >>> import numpy as np
    >>> default_decay_mask("head/kernel", np.zeros((2, 2)))
    True
    >>> default_decay_mask("embeddings/position_embeddings", np.zeros((1, 5, 2)))
    False
    """
    name = path.removesuffix("/value").rsplit("/", 1)[-1]  # nnx ends in "/value"
    return leaf.ndim > 1 and name not in NEVER_DECAYED


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
    layer_index: LayerIndex | None = None,
    num_layers: int | None = None,
    layer_decay: float | None = None,
    layer_decay_preset: str = "timm",
    final_norm: str | None = None,
    auto_rgn: int | None = None,
    auto_rgn_batches: int = 5,
    multipliers: Mapping[str, float] | None = None,
    open_at: OpenAt | None = None,
    group_of: Callable[[str], Any] | None = None,
    ema_decay: float | None = None,
    swa: tuple[int, int] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Make the whole optimizer of a fine-tuning run.

    The order, and why: EWC's penalty adds to the gradients; those of closed groups are
    zeroed, so that the clip norm is that of what moves; moments, decay and anchor are
    inside the gate, so that closed groups have none of them; scaling by layer and label
    follows the moments, which would cancel it; the learning rate multiplies everything
    once, decay included, on global steps; the average sees final updates; frozen leaves
    are kept out of it all, and set to zero as the second lock, by the outermost
    transform.

    Works on full trees and on trees with None where frozen, of any pytree type. With
    ``open_at``, ``update`` takes ``open_groups`` (see ``gradual_unfreeze``).

    Args:
      param_labels: one string a leaf; "frozen" leaves get no state and no update.
      optimizer: a key of ``OPTIMIZERS``, or any optax transform.
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
      anchor_mask: which leaves are pulled; by default all but the head (layer
        ``num_layers`` + 1), which starts from nothing worth keeping. Without
        ``layer_index``, all.
      keep_anchor: keep the starting point in the state though nothing here pulls to
        it, for `jft.train.mixout`; L2-SP of one strength keeps it anyway.
      clip_norm: largest global norm of the open gradients.
      layer_index: path to depth.
      num_layers: number of blocks, embeddings and head not counted.
      layer_decay: layer-wise learning-rate decay; None is none, but for the preset
        "ulmfit", which has its own.
      layer_decay_preset: a key of ``PRESETS``.
      final_norm: regex of the final norm, for the preset "beit".
      auto_rgn: steps between two measures of each layer's relative gradient norm, by
        which its rate is scaled; see the function of that name.
      auto_rgn_batches: that such a measure is the mean over.
      multipliers: label to learning-rate multiplier.
      open_at: group to opening step or windows; None opens everything.
      group_of: path to group; by default ``layer_index``.
      ema_decay: keep an average of the trainables, read by ``eval_params``.
      swa: likewise the plain mean: ``(start, every)`` of `track_swa`.

    Returns:
      The optimizer; apply its updates by adding them.

    Raises:
      InputError: if arguments contradict each other, or nothing is trainable.
    """
    labels = jax.tree.map(lambda x: x if x == FROZEN else "trainable", param_labels)
    if "trainable" not in jax.tree.leaves(labels):
        raise InputError(
            "every parameter is labelled frozen, so there is nothing to train; label "
            "some of them, a head for instance, with another name."
        )
    hyperparams = hyperparams or {}
    rule = _find_rule(optimizer)
    wants_layers = layer_decay is not None or layer_decay_preset == "ulmfit"
    group_of = group_of or layer_index
    _check_whole(optimizer, learning_rate, decays=bool(weight_decay or l2_sp))
    _check_wrap(optimizer, rule, open_at, ema_decay, swa)

    anchor_mask = anchor_mask or _all_but_head(layer_index, num_layers)
    decay = _decay_and_anchor(weight_decay, decay_mask, l2_sp, anchor_mask)
    core = make_direction(rule, decay, hyperparams)
    clip = [] if clip_norm is None else [clip_by_global_norm(clip_norm)]
    if auto_rgn is not None:
        if open_at is not None:
            raise InputError(
                f"auto_rgn is {auto_rgn} together with open_at: both say which layers "
                "move, and one that is closed has no gradient to measure. Drop one."
            )
        # it measures whole gradients: a clip would weigh batches
        core = make_auto_rgn(
            optax.chain(*clip, core),
            layer_index,
            every=auto_rgn,
            batches=auto_rgn_batches,
        )
        clip = []
    parts: list[optax.GradientTransformation] = []
    if ewc:
        parts.append(make_ewc(ewc, anchor_mask))
    if keep_anchor and (callable(l2_sp) or not l2_sp):
        parts.append(hold_anchor(anchor_mask))
    if open_at is not None:
        if group_of is None:
            raise InputError("open_at needs group_of or layer_index: path to group.")
        parts.append(close_gradients(group_of, open_at))
        core = gradual_unfreeze(core, group_of, open_at)
    parts += [*clip, core]
    if wants_layers:
        if layer_index is None or num_layers is None:
            raise InputError("layer_decay needs layer_index and num_layers.")
        parts.append(
            layerwise_lr_decay(
                layer_decay,
                layer_index,
                num_layers=num_layers,
                preset=layer_decay_preset,
                final_norm=final_norm,
            )
        )
    if multipliers:
        parts.append(scale_by_label(multipliers, param_labels))
    if learning_rate is not None:
        parts.append(scale_by_learning_rate(learning_rate))
    if ema_decay is not None:
        parts.append(track_ema(ema_decay))
    if swa is not None:
        parts.append(track_swa(*swa))
    chain = optax.chain(*parts)
    if learning_rate is not None:
        chain = make_wrapped(rule, chain, learning_rate, hyperparams)
    return _promoting(
        optax.multi_transform(
            {"trainable": chain, FROZEN: optax.set_to_zero()},
            lambda _: labels,  # optax would call a tree that is callable, a module
        )
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


def _check_wrap(
    optimizer: str | optax.GradientTransformation,
    rule: OptimizerRule,
    open_at: OpenAt | None,
    ema_decay: float | None,
    swa: tuple[int, int] | None,
) -> None:
    if ema_decay is not None and swa is not None:
        raise InputError(
            f"ema_decay is {ema_decay} and swa {swa}, two averages of which one is "
            "evaluated; leave one of them out."
        )
    if rule.wrap is None:
        return
    if open_at is not None:
        raise InputError(
            f"optimizer {optimizer!r} cannot open groups at steps: it moves all "
            "parameters together, between points of its own, so closed ones would "
            "not stay where they are. Drop open_at, or take another optimizer."
        )
    if ema_decay is not None or swa is not None:
        raise InputError(
            f"optimizer {optimizer!r} with ema_decay or swa: the parameters it shows "
            "are not the ones it evaluates (see eval_params). Drop the average, or "
            "take another optimizer."
        )


def _decay_and_anchor(
    weight_decay: float, decay_mask: LeafMask, l2_sp: Strength, anchor_mask: LeafMask
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


def _all_but_head(layer_index: LayerIndex | None, num_layers: int | None) -> LeafMask:
    if layer_index is None or num_layers is None:
        return lambda path, leaf: True
    return lambda path, leaf: layer_index(path) <= num_layers
