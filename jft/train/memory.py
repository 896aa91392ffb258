# SPDX-License-Identifier: Apache-2.0
"""What a training step needs of a device's memory, before the first one is taken."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jft.tables import format_table
from jft.train.compiled_step import CompiledStep
from jft.train.state import TrainState
from jft.types import Batch, InputError

CGROUP = Path("/sys/fs/cgroup/memory.max")  # of a container


class MemoryPlan(NamedTuple):
    """Bytes of one device during a step."""

    trainable: int
    frozen: int
    optimizer: int
    batch: int
    temporary: int  # gradients and activations, as the compiler plans them
    new: int  # results that take no donated buffer's place

    @property
    def total(self) -> int:
        """All that is there at once."""
        return sum(self)


def plan_memory(program: CompiledStep, state: TrainState, batch: Batch) -> MemoryPlan:
    """Read what a compiled step needs.

    Args:
      program: from ``train_step.compile(state, batch)``.
      state: what it was compiled for; arrays or shapes.
      batch: the same.

    Returns:
      Bytes of one device: of a sharded leaf its share.
    """
    analysis = program.executable.memory_analysis()
    return MemoryPlan(
        trainable=bytes_on_a_device(state.trainable),
        frozen=bytes_on_a_device(state.frozen),
        optimizer=bytes_on_a_device(state.opt_state),
        batch=bytes_on_a_device(batch),
        temporary=int(analysis.temp_size_in_bytes),
        new=int(analysis.output_size_in_bytes - analysis.alias_size_in_bytes),
    )


def bytes_on_a_device(tree: Any) -> int:
    """Bytes that one device holds of the arrays of a tree."""

    def size(leaf: Any) -> int:
        sharding = getattr(leaf, "sharding", None)
        shape = sharding.shard_shape(leaf.shape) if sharding else np.shape(leaf)
        return int(np.prod(shape)) * jax.numpy.result_type(leaf).itemsize

    leaves = [x for x in jax.tree.leaves(tree) if not _is_key(x)]
    return sum(map(size, leaves))


def device_bytes() -> int | None:
    """Memory of one of this process's devices; those of a CPU share the machine's."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    if device.platform != "cpu":
        return None
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if CGROUP.exists() and (text := CGROUP.read_text().strip()).isdecimal():
        whole = min(whole, int(text))
    return whole // jax.local_device_count()


def check_memory(plan: MemoryPlan, limit: int | None) -> None:
    """Refuse a step that cannot fit, and say what takes most and what to change.

    Args:
      plan: of the largest step.
      limit: bytes of a device; None is not known, and nothing is refused.

    Raises:
      InputError: if the plan exceeds the limit.
    """
    if limit is None or plan.total <= limit:
        return
    most = max(ADVICE, key=lambda name: getattr(plan, name))
    raise InputError(
        f"a training step needs {plan.total / 1e9:.3g} GB of a device that has "
        f"{limit / 1e9:.3g} GB. Most of it, {getattr(plan, most) / 1e9:.3g} GB, is "
        f"{NAMES[most]}: {ADVICE[most]}."
    )


def describe_memory(plan: MemoryPlan, limit: int | None) -> str:
    """The plan as a table for people."""
    rows = [
        [NAMES[name], f"{size / 1e6:,.1f}", f"{size / plan.total:.1%}"]
        for name, size in plan._asdict().items()
    ]
    share = "" if limit is None else f"{plan.total / limit:.1%} of the device"
    rows.append(["the largest step", f"{plan.total / 1e6:,.1f}", share])
    return format_table(rows, ["memory of a device", "MB", "share"])


NAMES = {
    "trainable": "trainable parameters",
    "frozen": "frozen parameters",
    "optimizer": "optimizer state",
    "batch": "the batch",
    "temporary": "gradients and activations",
    "new": "results",
}
ADVICE = {
    "temporary": (
        "raise train.grad_accum_steps, set train.remat to "
        '[[".*", "nothing"]], or make data.global_batch_size or data.max_length smaller'
    ),
    "optimizer": (
        "freeze more in partition.rules, choose an optimizer with less state, or "
        "spread it with train.mesh.fsdp"
    ),
    "trainable": "freeze more in partition.rules, or spread them with train.mesh.fsdp",
    "frozen": (
        'set train.compute_dtype to "bfloat16", which halves them, or model.quantize '
        'to "nf4" beside an adapter, or spread them with train.mesh.fsdp'
    ),
}


def _is_key(leaf: Any) -> bool:
    dtype = getattr(leaf, "dtype", np.dtype(float))
    return bool(jax.numpy.issubdtype(dtype, jax.dtypes.prng_key))
