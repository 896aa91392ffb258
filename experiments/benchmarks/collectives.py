# SPDX-License-Identifier: Apache-2.0
"""What one device sends in a training step, from the compiled program.

For 1 to 256 devices, all along one axis of the mesh; the tensor axis of more than eight
is joined with the data axis, as in a machine of eight. Rows a device stay the same. No
step is run, so the devices need not exist: on a CPU they are virtual.
"""

import contextlib
from typing import Any

import jax
import numpy as np

from experiments import build, run_config, training
from experiments.benchmarks.measure import Measured, Settings
from experiments.benchmarks.step import filled
from jft import train
from jft.tables import format_table

COUNTS = (1, 2, 4, 8, 64, 256)
AXES = ("data", "fsdp", "tensor")
MAX_TENSOR = 8  # devices of one machine
SHAPE = (2, 64)  # rows a device, tokens


def measure(settings: Settings) -> Measured:
    """Compile the step of each config for each number of devices and each axis."""
    with contextlib.suppress(RuntimeError):  # a process that has its devices keeps them
        jax.config.update("jax_num_cpu_devices", max(COUNTS))
    counts = [n for n in COUNTS if n <= jax.device_count()]
    results = [
        measure_one(name, settings, axis, count)
        for name in settings.configs
        for axis in AXES
        for count in counts
        if count > 1 or axis == AXES[0]
    ]
    rows = [describe_one(result) for result in results]
    headers = ["config", "axis", "devices", "state MB", "temporary MB", "sent MB", "of"]
    return Measured(results, format_table(rows, headers))


def describe_one(result: dict[str, Any]) -> list[Any]:
    """A row of the table."""
    found = result["collectives"]
    sent = sum(one["sent_bytes"] for one in found.values())
    of = ", ".join(f"{one['operations']} {kind}" for kind, one in found.items())
    axis = result["axis"] if result["devices"] > 1 else ""
    megabytes = [f"{x / 1e6:.2f}" for x in (result["state"], result["temporary"], sent)]
    return [result["config"], axis, result["devices"], *megabytes, of]


def measure_one(name: str, settings: Settings, axis: str, count: int) -> dict[str, Any]:
    """Bytes of one device: its part of the state, temporaries, and what it sends."""
    # a batch that divides over all; the one that is compiled is filled below
    overrides = {**settings.overrides, "data.global_batch_size": jax.device_count()}
    job = build.make_job(run_config.load(name, overrides))
    sizes = {axis: count if axis != "tensor" else min(count, MAX_TENSOR)}
    sizes.setdefault("data", count // int(np.prod(list(sizes.values()))))
    mesh = train.make_mesh(**sizes, devices=jax.devices()[:count])
    rows, length = settings.shape or SHAPE
    batch = filled(job.loader.largest(), rows * train.num_shares(mesh), length)

    state = jax.eval_shape(lambda: training.init_state(job))
    shardings = train.state_shardings(
        state, mesh, tensor_rules=job.model.family.tensor_rules
    )
    step_fn = training.make_train_step(job, state_shardings=shardings)
    placed = jax.tree.map(
        lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
        (state, batch),
        (shardings, dict.fromkeys(batch, train.batch_sharding(mesh))),
    )
    program = step_fn.compile(*placed, open_groups=job.plan.open_groups_at(0, []))
    plan = train.plan_memory(program, *placed)
    found = train.count_collectives(program.executable.as_text())
    return {
        "config": run_config.short_name(name),
        "axis": axis,
        "devices": count,
        "trainable": program.num_params,
        "state": plan.trainable + plan.frozen + plan.optimizer,
        "temporary": plan.temporary,
        "collectives": {kind: one._asdict() for kind, one in found.items()},
    }
