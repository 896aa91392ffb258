# SPDX-License-Identifier: Apache-2.0
"""Directions of descent: each optimizer without learning rate and sign.

Each takes the transform that adds decoupled weight decay and puts it where its paper
has it: after the moments for the Adam family, before the trust ratio for LAMB. The
``wrap_*`` functions go around a finished chain, learning rate and sign included.
Defaults are the papers'.
"""

from typing import Any, TypeAlias

import optax
import optax.contrib

from jft import paths
from jft.optim.sam import sam
from jft.types import Params, Schedule

Transform: TypeAlias = optax.GradientTransformation


def adabelief(
    decay: Transform, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-16
) -> Transform:
    """Zhuang et al. 2020."""
    return optax.chain(optax.scale_by_belief(b1, b2, eps), decay)


def adafactor(
    decay: Transform,
    *,
    decay_rate: float = 0.8,
    min_dim_size_to_factor: int = 128,
    clipping_threshold: float = 1.0,
    multiply_by_parameter_scale: bool = True,
) -> Transform:
    """Shazeer and Stern 2018; steps relative to each leaf's size by default."""
    scale = optax.scale_by_param_block_rms()
    return optax.chain(
        optax.scale_by_factored_rms(
            decay_rate=decay_rate, min_dim_size_to_factor=min_dim_size_to_factor
        ),
        optax.clip_by_block_rms(clipping_threshold),
        scale if multiply_by_parameter_scale else optax.identity(),
        decay,
    )


def adagrad(
    decay: Transform, *, initial_accumulator: float = 0.1, eps: float = 1e-7
) -> Transform:
    """Duchi et al. 2011."""
    return optax.chain(optax.scale_by_rss(initial_accumulator, eps), decay)


def adamax(
    decay: Transform, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> Transform:
    """Kingma and Ba 2015, section 7.1."""
    return optax.chain(optax.scale_by_adamax(b1, b2, eps), decay)


def adamw(
    decay: Transform, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> Transform:
    """Loshchilov and Hutter 2019."""
    return optax.chain(optax.scale_by_adam(b1, b2, eps), decay)


def adan(
    decay: Transform,
    *,
    b1: float = 0.98,
    b2: float = 0.92,
    b3: float = 0.99,
    eps: float = 1e-8,
) -> Transform:
    """Xie et al. 2022."""
    return optax.chain(optax.scale_by_adan(b1, b2, b3, eps), decay)


def ademamix(
    decay: Transform,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    b3: float = 0.9999,
    alpha: float = 5.0,
    eps: float = 1e-8,
) -> Transform:
    """Pagliardini et al. 2024."""
    return optax.chain(optax.contrib.scale_by_ademamix(b1, b2, b3, alpha, eps), decay)


def amsgrad(
    decay: Transform, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> Transform:
    """Reddi et al. 2018."""
    return optax.chain(optax.scale_by_amsgrad(b1, b2, eps), decay)


def lamb(
    decay: Transform, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6
) -> Transform:
    """You et al. 2020; decay before the trust ratio."""
    return optax.chain(
        optax.scale_by_adam(b1, b2, eps), decay, optax.scale_by_trust_ratio()
    )


def lars(
    decay: Transform, *, momentum: float = 0.9, trust_coefficient: float = 0.001
) -> Transform:
    """You et al. 2017; decay before the trust ratio, momentum after it."""
    trust = optax.scale_by_trust_ratio(trust_coefficient=trust_coefficient)
    return optax.chain(decay, trust, optax.trace(momentum))


def lion(decay: Transform, *, b1: float = 0.9, b2: float = 0.99) -> Transform:
    """Chen et al. 2023."""
    return optax.chain(optax.scale_by_lion(b1, b2), decay)


def muon(
    decay: Transform,
    *,
    beta: float = 0.95,
    num_iterations: int = 5,
    rms: float = 0.2,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> Transform:
    """Jordan et al. 2024: matrices; AdamW's direction for all else."""

    # With updates of AdamW's usual size (rms 0.2, Liu et al. 2025) one learning rate
    # serves both halves.
    def specs(tree: Any) -> Any:
        def spec(path: str, leaf: Any) -> Any:
            del path, leaf
            return optax.contrib.MuonDimensionNumbers()

        return paths.map_with_path(spec, tree)

    def scale_for_shape(path: str, update: Any) -> Any:
        del path
        return update * (max(update.shape) ** 0.5 * rms)

    matrices = optax.chain(
        optax.contrib.scale_by_muon(
            beta=beta, ns_steps=num_iterations, weight_dimension_numbers=specs
        ),
        optax.stateless(
            lambda updates, _: paths.map_with_path(scale_for_shape, updates)
        ),
    )
    rest = optax.scale_by_adam(b1, b2, eps)
    kinds = {"matrix": matrices, "rest": rest}
    return optax.chain(optax.partition(kinds, _muon_kinds), decay)


def _muon_kinds(tree: Params) -> Any:
    """Muon moves matrices that are multiplied by; lookup tables are not."""

    def kind(path: str, leaf: Any) -> str:
        is_table = "embedding" in path.rsplit("/", 1)[-1]
        return "matrix" if leaf.ndim == 2 and not is_table else "rest"

    return paths.map_with_path(kind, tree)


def nadam(
    decay: Transform, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> Transform:
    """Dozat 2016, with decoupled decay."""
    return optax.chain(optax.scale_by_adam(b1, b2, eps, nesterov=True), decay)


def radam(
    decay: Transform,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    threshold: float = 5.0,
) -> Transform:
    """Liu et al. 2020."""
    return optax.chain(optax.scale_by_radam(b1, b2, eps, threshold=threshold), decay)


def rmsprop(
    decay: Transform, *, smoothing: float = 0.9, eps: float = 1e-8
) -> Transform:
    """Tieleman and Hinton 2012."""
    return optax.chain(optax.scale_by_rms(smoothing, eps), decay)


def schedule_free_adamw(
    decay: Transform, *, b2: float = 0.999, eps: float = 1e-8
) -> Transform:
    """Defazio et al. 2024; to be wrapped."""
    # Adam with b1 = 0, without the room for a first moment; the wrap has its own b1.
    rms = optax.scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True)
    return optax.chain(rms, decay)


def schedule_free_sgd(decay: Transform) -> Transform:
    """Defazio et al. 2024; to be wrapped."""
    return optax.chain(decay)


def wrap_schedule_free(
    chain: Transform,
    learning_rate: float | Schedule,
    *,
    b1: float = 0.9,
    weight_power: float = 2.0,
) -> Transform:
    """Defazio et al. 2024: gradients between the average and the fast iterate."""

    def same_clock(step: Any) -> Any:
        # This wrap counts from 1, the chain from 0.
        return learning_rate(step - 1) if callable(learning_rate) else learning_rate

    return optax.contrib.schedule_free(
        chain, same_clock, b1=b1, weight_lr_power=weight_power
    )


def wrap_sam(
    chain: Transform, learning_rate: float | Schedule, *, rho: float = 0.05
) -> Transform:
    """Foret et al. 2021."""
    del learning_rate
    return sam(chain, rho=rho)


def sgd(
    decay: Transform, *, momentum: float = 0.9, nesterov: bool = False
) -> Transform:
    """SGD with momentum; decoupled decay (SGDW, Loshchilov and Hutter 2019)."""
    return optax.chain(optax.trace(momentum, nesterov), decay)


def signum(decay: Transform, *, momentum: float = 0.9) -> Transform:
    """Bernstein et al. 2018."""
    return optax.chain(optax.ema(momentum, debias=False), optax.scale_by_sign(), decay)


def yogi(
    decay: Transform, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-3
) -> Transform:
    """Zaheer et al. 2018."""
    return optax.chain(optax.scale_by_yogi(b1, b2, eps), decay)
