# SPDX-License-Identifier: Apache-2.0
"""Where arrays live: a mesh, rules from paths to axes, and placing on it.

The main path is ``jit`` over a mesh with the axes ``data`` (examples) and ``fsdp``
(examples too, and the parameters are spread over it). The compiler inserts the
communication; nothing in the step knows about devices.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jft import paths
from jft.train.state import TrainState
from jft.types import Batch, InputError, Params

MIN_SHARDED_SIZE = 2**12  # smaller leaves cost more to gather than to keep


def make_mesh(*, data: int = -1, fsdp: int = 1) -> Mesh:
    """Arrange all devices as ``data x fsdp``.

    Args:
      data: size of the data axis; -1 takes what ``fsdp`` leaves.
      fsdp: size of the axis that also spreads the parameters.

    Returns:
      The mesh, its axes sharded automatically by the compiler.

    Raises:
      InputError: if the product is not the number of devices.
    """
    count = jax.device_count()
    if data == -1 and fsdp > 0 and count % fsdp == 0:
        data = count // fsdp
    if data * fsdp != count or data < 1:
        raise InputError(
            f"mesh data={data} x fsdp={fsdp} does not use {count} devices exactly; "
            "choose sizes whose product is the number of devices (data=-1 takes the "
            "rest)."
        )
    return jax.make_mesh(
        (data, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2
    )


def check_batch_size(
    global_batch_size: int, *, num_devices: int, grad_accum_steps: int = 1
) -> None:
    """Refuse a batch that does not divide over microbatches and devices.

    Raises:
      InputError: with the nearest sizes that do.
    """
    unit = num_devices * grad_accum_steps
    if global_batch_size < 1 or global_batch_size % unit:
        lower = global_batch_size // unit * unit
        raise InputError(
            f"global_batch_size {global_batch_size} does not divide over {num_devices} "
            f"devices x {grad_accum_steps} microbatches; use a multiple of {unit}, "
            f"such as {lower or unit} or {lower + unit}."
        )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Examples spread over every device."""
    return NamedSharding(mesh, P(("data", "fsdp")))


def shard_batch(batch: Batch, mesh: Mesh) -> dict[str, jax.Array]:
    """Place this process's rows of a global batch.

    Args:
      batch: host arrays; the first axis is this process's share of the batch.
      mesh: where to.

    Returns:
      Global arrays, sharded over examples.
    """
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(rows))
        for name, rows in batch.items()
    }


def param_shardings(
    params: Params, mesh: Mesh, *, rules: paths.Rules[P] | None = None
) -> Params:
    """Choose a sharding for every parameter, as `state_shardings` does.

    Args:
      params: arrays or ``ShapeDtypeStruct`` leaves.
      mesh: where to.
      rules: as for `state_shardings`.

    Returns:
      The same tree with a `NamedSharding` a leaf.
    """
    specs = _specs(paths.flatten(params), mesh, rules)
    return paths.map_with_path(lambda path, _: NamedSharding(mesh, specs[path]), params)


def state_shardings(
    state: TrainState, mesh: Mesh, *, rules: paths.Rules[P] | None = None
) -> TrainState:
    """Choose a sharding for every leaf of a state.

    Args:
      state: arrays or ``ShapeDtypeStruct`` leaves.
      mesh: where to.
      rules: ordered ``(regex over the parameter path, PartitionSpec)``; None spreads
        the largest axis that divides over ``fsdp``, for leaves of at least
        `MIN_SHARDED_SIZE` elements.

    Returns:
      The same tree with a `NamedSharding` a leaf; optimizer state follows the
      parameter whose path its own path ends with.

    Raises:
      InputError: if the rules do not cover the parameters exactly.
    """
    params = paths.flatten(state.params)
    spec_of = _specs(params, mesh, rules)

    def sharding(path: str, leaf: Any) -> NamedSharding:
        owner = _owner(path, leaf, params)
        return NamedSharding(mesh, spec_of[owner] if owner else P())

    placed = {
        name: paths.map_with_path(sharding, getattr(state, name))
        for name in state._fields
    }
    return TrainState(**placed)


def place_state(state: TrainState, shardings: TrainState) -> TrainState:
    """Put a state where it should live."""
    return jax.device_put(state, shardings)  # type: ignore[no-any-return]


def _specs(
    params: dict[str, Params], mesh: Mesh, rules: paths.Rules[P] | None
) -> dict[str, P]:
    if rules is not None:
        return paths.match_rules(rules, params)
    return {path: _fsdp_spec(leaf, mesh.shape["fsdp"]) for path, leaf in params.items()}


def _fsdp_spec(leaf: Any, size: int) -> P:
    axes = [i for i, n in enumerate(leaf.shape) if n % size == 0]
    if size == 1 or leaf.size < MIN_SHARDED_SIZE or not axes:
        return P()
    largest = max(axes, key=lambda i: leaf.shape[i])
    return P(*(("fsdp" if i == largest else None) for i in range(leaf.ndim)))


def _owner(path: str, leaf: Any, params: dict[str, Any]) -> str | None:
    """The parameter that a leaf of the state is about, by path suffix and shape."""
    parts = path.split("/")
    for start in range(len(parts)):
        name = "/".join(parts[start:])
        if name in params and params[name].shape == leaf.shape:
            return name
    return None
