# SPDX-License-Identifier: Apache-2.0
"""One training step: differentiate what is open, update it, leave the rest alone."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jft import paths
from jft.optim import anchor_of, penalty_of
from jft.partition import combine, is_trainable
from jft.train.chunked_loss import Chunks, score_tokens
from jft.train.compiled_step import OpenGroups, TrainStep, split_open
from jft.train.losses import Pair
from jft.train.mixout import mixout as mix_weights
from jft.train.sharding import gather_params
from jft.train.state import TrainState, cast_floating
from jft.train.two_heads import REPLAYED
from jft.types import (
    ApplyFn,
    Batch,
    Group,
    InputError,
    LossFn,
    Metrics,
    ParamLabels,
    Params,
    PrefixFn,
)

MetricFns = Mapping[str, LossFn]
MIXOUT = 2**31 - 1  # folded into a step's key; no microbatch has this index


def make_train_step(
    apply_fn: ApplyFn,
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    param_labels: ParamLabels,
    *,
    group_of: Callable[[str], Group] | None = None,
    grad_accum_steps: int = 1,
    compute_dtype: Any = None,
    metric_fns: MetricFns | None = None,
    prefix_fn: PrefixFn | None = None,
    chunks: Chunks | None = None,
    mixout: float = 0.0,
    state_shardings: TrainState | None = None,
) -> TrainStep:
    """Make the jitted step function.

    Args:
      apply_fn: the model's forward.
      loss_fn: ``(outputs, batch) -> (sum, weight)``; the step minimises their ratio
        over the whole global batch, however it is divided.
      tx: the optimizer; with ``open_groups`` it must take them, as
        `jft.optim.make_optimizer`'s does.
      param_labels: the label tree; frozen leaves are never differentiated.
      group_of: maps a path to what opens as one; needed with ``open_groups``.
      grad_accum_steps: microbatches a step; the result is that of the whole batch.
      compute_dtype: dtype of parameters and inputs in the forward, such as
        bfloat16; None keeps theirs. Updates apply to the parameters as stored.
      metric_fns: more ``(sum, weight)`` functions to report.
      prefix_fn: runs what lies below the lowest open layer, ``group_of`` its depth,
        without dropout, as it can be kept; None drops out everywhere.
      chunks: score so many tokens of each row at a time, and none without a target:
        for losses and metrics that are sums over tokens. None scores all at once.
      mixout: probability that a weight is the one it started from, drawn anew each
        step, see `jft.train.mixout`; ``tx`` must keep the start (``keep_anchor``).
      state_shardings: where the new state lives on a mesh; None lets jit decide.

    Returns:
      The step. Metrics are ``loss``, ``grad_norm`` (before clipping, over what is
      open), ``nonfinite_streak`` and those of ``metric_fns``; of an optimizer with
      EWC also ``penalty``, its part of what is minimised, which ``loss`` and
      ``grad_norm`` are without.
    """
    step = functools.partial(
        step_core,
        forward=make_forward(
            apply_fn,
            loss_fn,
            metric_fns or {},
            compute_dtype=compute_dtype,
            prefix_fn=prefix_fn,
            chunks=chunks,
            param_shardings=state_shardings and state_shardings.params,
        ),
        tx=optax.with_extra_args_support(tx),
        param_labels=param_labels,
        group_of=group_of,
        grad_accum_steps=grad_accum_steps,
        mixout=mixout,
    )

    out_shardings = None
    if state_shardings is not None:
        out_shardings = (state_shardings._replace(frozen=None), None)
    return TrainStep(
        jitted=jax.jit(
            step, static_argnums=3, donate_argnums=0, out_shardings=out_shardings
        ),
        group_of=group_of,
    )


Sums = dict[str, Pair]
Forward = Callable[[Params, Batch, jax.Array, int], tuple[jax.Array, Sums]]


def make_forward(
    apply_fn: ApplyFn,
    loss_fn: LossFn,
    metric_fns: MetricFns,
    *,
    compute_dtype: Any = None,
    prefix_fn: PrefixFn | None = None,
    chunks: Chunks | None = None,
    param_shardings: Params = None,
) -> Forward:
    """Sum of losses over a (micro)batch, and every ``(sum, weight)`` beside it.

    The last argument is the depth of the lowest open layer.
    """

    def score(outputs: Any, batch: Batch) -> tuple[jax.Array, Sums]:
        sums = {"loss": loss_fn(outputs, batch)}
        sums |= {name: fn(outputs, batch) for name, fn in metric_fns.items()}
        return sums["loss"][0], sums

    def forward(
        params: Params, batch: Batch, key: jax.Array, lowest: int
    ) -> tuple[jax.Array, Sums]:
        inputs = batch
        if compute_dtype is not None:
            params, inputs = cast_floating((params, batch), compute_dtype)
        if param_shardings is not None:
            params = gather_params(params, param_shardings)
        if prefix_fn is not None:
            inputs = prefix_fn(params, inputs, stop=lowest)
        return score_tokens(
            apply_fn, params, inputs, batch, score, key=key, chunks=chunks
        )

    return forward


def step_core(
    moving: TrainState,
    frozen: Params,
    batch: Batch,
    open_groups: OpenGroups,
    *,
    forward: Forward,
    tx: optax.GradientTransformationExtraArgs,
    param_labels: ParamLabels,
    group_of: Callable[[str], Group] | None,
    grad_accum_steps: int,
    axis_name: str | None = None,
    mixout: float = 0.0,
) -> tuple[TrainState, Metrics]:
    """The step itself, before jit or pmap."""
    _check_labels(moving.trainable, param_labels)
    # the weight of a batch that is computed at once is known before its backward pass,
    # and a mean's gradients need no pass of their own to become one
    at_once = grad_accum_steps == 1 and axis_name is None
    if not at_once:
        divided = f"grad_accum_steps is {grad_accum_steps} and the axis {axis_name!r}"
        _check_divisible(batch, divided)
    open_, closed = split_open(moving.trainable, open_groups, group_of)
    lowest = lowest_group(open_, group_of)
    key = jax.random.fold_in(moving.key, moving.step)

    def loss_of(open_leaves: Params, microbatch: Batch, key: jax.Array) -> Any:
        mixed = mix(open_leaves) if mixout else open_leaves
        params = combine(mixed, closed, frozen)
        total, sums = forward(params, microbatch, key, lowest)
        scale = _inverse(sums["loss"][1]) if at_once else jnp.ones(())
        return total * scale.astype(total.dtype), sums

    def mix(open_leaves: Params) -> Params:
        # one draw a step, whatever it is divided into
        draw = jax.random.fold_in(key, MIXOUT)
        anchor = anchor_of(moving.opt_state)
        return mix_weights(open_leaves, anchor, probability=mixout, key=draw)

    own = key  # of dropout: each device has rows of its own
    if axis_name is not None:
        own = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
    grads, sums = _gradients(loss_of, open_, batch, own, grad_accum_steps)
    if axis_name is not None:
        grads, sums = jax.lax.psum((grads, sums), axis_name)
    if not at_once:
        scale = _inverse(sums["loss"][1])
        grads = jax.tree.map(lambda g: g * scale.astype(g.dtype), grads)
    metrics = {name: total / count for name, (total, count) in sums.items()}
    metrics["grad_norm"] = optax.tree.norm(grads)
    return _update(moving, grads, metrics, tx, open_groups)


def _check_divisible(batch: Batch, divided: str) -> None:
    """Refuse to divide a batch whose examples belong together."""
    reasons = {
        "first_tokens": "its examples share rows",
        REPLAYED: "the mean of replayed examples is one of its own",
    }
    for name, reason in reasons.items():
        if name in batch:
            raise InputError(
                f"the batch has {name!r}: {reason}, so it cannot be divided, but "
                f"{divided}. Take the batch at once, with make_train_step and "
                "grad_accum_steps=1."
            )


def _update(
    moving: TrainState,
    grads: Params,
    metrics: Metrics,
    tx: optax.GradientTransformationExtraArgs,
    open_groups: OpenGroups,
) -> tuple[TrainState, Metrics]:
    """Move what is open, unless a number is not finite: then count that instead."""
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
    extra: dict[str, Any] = {"step": moving.step}
    if open_groups is not None:
        extra["open_groups"] = open_groups

    def update(trainable: Params, opt_state: Any, grads: Params) -> tuple[Params, Any]:
        with jax.numpy_dtype_promotion("standard"):  # optax mixes floats and counts
            updates, opt_state = tx.update(grads, opt_state, trainable, **extra)
        return _apply_updates(trainable, updates), opt_state

    # a branch, not a choice of old or new leaf by leaf: XLA would copy the old moments
    trainable, opt_state = jax.lax.cond(
        finite,
        update,
        lambda trainable, opt_state, grads: (trainable, opt_state),
        moving.trainable,
        moving.opt_state,
        grads,
    )
    streak = jnp.where(finite, 0, moving.nonfinite_streak + 1)
    metrics = metrics | {"nonfinite_streak": streak}
    if (penalty := penalty_of(opt_state)) is not None:
        metrics["penalty"] = penalty
    state = moving._replace(
        step=moving.step + 1,
        trainable=trainable,
        opt_state=opt_state,
        nonfinite_streak=streak,
        nonfinite_total=moving.nonfinite_total + jnp.where(finite, 0, 1),
    )
    return state, metrics


def _inverse(weight: jax.Array) -> jax.Array:
    """One over the weight of a batch, or zero where nothing in it counts."""
    return jax.lax.stop_gradient(jnp.where(weight > 0, 1.0 / weight, 0.0))


def _check_labels(trainable: Params, param_labels: ParamLabels) -> None:
    labels = paths.flatten(param_labels)
    expected = {path for path, label in labels.items() if is_trainable(label)}
    if expected != (found := set(paths.flatten(trainable))):
        raise InputError(
            "the state and param_labels disagree on what trains. Only in the labels: "
            f"{sorted(expected - found)}. Only in the state: "
            f"{sorted(found - expected)}. Make the state with init_state and the same "
            "labels."
        )


def lowest_group(open_: Params, group_of: Callable[[str], Group] | None) -> int:
    """The depth of the lowest open layer; 0 where groups are not depths."""
    if group_of is None:
        return 0
    groups = {group_of(path) for path in paths.flatten(open_)}
    depths = [group for group in groups if isinstance(group, int)]
    return min(depths) if len(depths) == len(groups) else 0


def _gradients(
    loss_of: Callable[[Params, Batch, jax.Array], tuple[jax.Array, Sums]],
    open_: Params,
    batch: Batch,
    key: jax.Array,
    grad_accum_steps: int,
) -> tuple[Params, Sums]:
    """Gradient of the summed loss and the sums, over all microbatches."""
    grad_fn = jax.grad(loss_of, has_aux=True)
    if grad_accum_steps == 1:
        return grad_fn(open_, batch, key)

    def microbatches(x: jax.Array) -> jax.Array:
        # Row r goes to microbatch r % n, so that every device works on each of them.
        return jnp.swapaxes(x.reshape(-1, grad_accum_steps, *x.shape[1:]), 0, 1)

    def body(total: Any, inputs: Any) -> tuple[Any, None]:
        index, microbatch = inputs
        part = grad_fn(open_, microbatch, jax.random.fold_in(key, index))
        return jax.tree.map(jnp.add, total, part), None

    inputs = (jnp.arange(grad_accum_steps), jax.tree.map(microbatches, dict(batch)))
    first = jax.tree.map(lambda x: x[0], inputs[1])
    shapes = jax.eval_shape(grad_fn, open_, first, key)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    total, _ = jax.lax.scan(body, zeros, inputs)
    return total


def _apply_updates(trainable: Params, updates: Params) -> Params:
    """Add updates where there are any; closed leaves pass through untouched."""

    def apply(param: Any, update: Any) -> Any:
        return param if update is None else (param + update).astype(param.dtype)

    return jax.tree.map(apply, trainable, updates, is_leaf=lambda x: x is None)
