# SPDX-License-Identifier: Apache-2.0
"""Which numbers move, how, and how fast."""

from collections.abc import Callable

import optax

import jft
from experiments import anchors
from experiments.plan import Plan
from jft import optim, partition
from jft.config import Config, OptimConfig
from jft.params import adapters
from jft.types import ParamLabels


def label_params(config: Config, model: jft.Pretrained) -> ParamLabels:
    """Label the parameters and make sure that what is new will train."""
    base = adapters.without_adapters(model.params)
    labels = partition.label_params(base, config.partition.rules)
    if model.adapter is not None:
        labels = adapters.label_adapted(model.params, labels, model.adapter)
    partition.check_new_leaves_move(model.report.new, labels)
    partition.check_quantised_stay(model.params, labels)
    return labels


def make_optimizer(
    config: Config, model: jft.Pretrained, labels: ParamLabels, plan: Plan
) -> optax.GradientTransformationExtraArgs:
    """The whole chain."""
    settings = config.optim
    return optim.make_optimizer(
        labels,
        keep_anchor=anchors.mixes(config.train, model, labels),
        optimizer=settings.optimizer,
        learning_rate=plan.schedule,
        hyperparams=settings.hyperparams,
        weight_decay=settings.weight_decay,
        decay_mask=anchors.decay_mask(settings, model, labels),
        l2_sp=anchors.l2_sp(settings, model, labels),
        ewc=anchors.ewc(settings, model, labels),
        anchor_mask=anchors.make_mask(model),
        clip_norm=settings.clip_norm,
        multiplier=make_multiplier(settings, model, labels),
        layer_index=model.layer_index,
        open_at=plan.open_at,
        ema_decay=settings.ema_decay,
        auto_rgn=plan.auto_rgn,
        auto_rgn_batches=settings.auto_rgn_batches,
        swa=plan.swa,
    )


def make_multiplier(
    config: OptimConfig, model: jft.Pretrained, labels: ParamLabels
) -> Callable[[str], float]:
    """Each path's factor of the learning rate: its layer's times its label's."""
    return optim.product(
        optim.layer_multiplier(
            config.layer_decay,
            model.layer_index,
            num_layers=model.num_layers,
            preset=config.layer_decay_preset,
            final_norm=model.family.final_norm,
        ),
        optim.label_multiplier(config.multipliers, labels),
    )
