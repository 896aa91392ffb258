# SPDX-License-Identifier: Apache-2.0
"""``pmap`` behind one function, for code that still needs it; new code uses jit."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jft.train.state import TrainState
from jft.train.step import MetricFns, make_forward, step_core
from jft.types import (
    ApplyFn,
    Batch,
    Group,
    InputError,
    LossFn,
    Metrics,
    ParamLabels,
)

AXIS = "devices"


def make_pmap_train_step(
    apply_fn: ApplyFn,
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    param_labels: ParamLabels,
    *,
    group_of: Callable[[str], Group] | None = None,
    grad_accum_steps: int = 1,
    metric_fns: MetricFns | None = None,
    **forward_options: Any,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Make a step over replicated states and batches split by device.

    The arguments are those of `jft.train.make_train_step` (``compute_dtype``,
    ``prefix_fn`` and ``chunks`` too), and so are the numbers: sums, weights and
    gradients are added over devices before anything is divided.

    Returns:
      ``step_fn(state, batch, open_groups=None)``; the state comes from `replicate`,
      the batch from `split_over_devices`, and both first axes are devices.
    """
    step = functools.partial(
        step_core,
        forward=make_forward(
            apply_fn,
            loss_fn,
            metric_fns or {},
            **forward_options,
        ),
        tx=optax.with_extra_args_support(tx),
        param_labels=param_labels,
        group_of=group_of,
        grad_accum_steps=grad_accum_steps,
        axis_name=AXIS,
    )
    mapped = jax.pmap(
        step, axis_name=AXIS, donate_argnums=0, static_broadcasted_argnums=3
    )

    def step_fn(
        state: TrainState, batch: Batch, *, open_groups: frozenset[Group] | None = None
    ) -> tuple[TrainState, Metrics]:
        moving, metrics = mapped(
            state._replace(frozen=None), state.frozen, batch, open_groups
        )
        first = jax.tree.map(lambda x: x[0], metrics)
        return moving._replace(frozen=state.frozen), first

    return step_fn


def replicate(state: TrainState) -> TrainState:
    """Give every local device a copy: a new first axis, one row a device."""
    count = jax.local_device_count()
    return jax.tree.map(lambda x: jnp.stack([x] * count), state)


def unreplicate(state: TrainState) -> TrainState:
    """Take the copy of the first device."""
    return jax.tree.map(lambda x: x[0], state)


def split_over_devices(batch: Batch) -> dict[str, Any]:
    """Reshape every field from ``[B, …]`` to ``[devices, B / devices, …]``.

    Raises:
      InputError: if ``B`` does not divide over the local devices.
    """
    count = jax.local_device_count()
    sizes = {name: rows.shape[0] for name, rows in batch.items()}
    ragged = {name: size for name, size in sizes.items() if size % count}
    if ragged:
        raise InputError(
            f"batch rows {ragged} do not divide over {count} devices; use a batch size "
            f"that is a multiple of {count}."
        )
    return {
        name: rows.reshape(count, -1, *rows.shape[1:]) for name, rows in batch.items()
    }
