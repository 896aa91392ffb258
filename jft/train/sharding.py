# SPDX-License-Identifier: Apache-2.0
"""Where arrays live: a mesh, rules from paths to axes, and placing on it.

The main path is ``jit`` over a mesh with three axes: ``data`` (examples), ``fsdp``
(examples too, and parameters with their optimizer state, as in ZeRO-3) and ``tensor``
(the products of a layer). The compiler inserts the communication; nothing in the step
knows about devices.

Rajbhandari et al. 2020, "ZeRO", arXiv 1910.02054; Shoeybi et al. 2019, "Megatron-LM",
arXiv 1909.08053.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jft import paths
from jft.train.state import TrainState
from jft.types import Batch, InputError, Params, TensorRules

MIN_SHARDED_SIZE = 2**12  # smaller leaves cost more to gather than to keep


AXES = ("data", "fsdp", "tensor")
EXAMPLES = ("data", "fsdp")  # the axes that a batch is spread over


def make_mesh(
    *,
    data: int = -1,
    fsdp: int = 1,
    tensor: int = 1,
    devices: Sequence[Any] | None = None,
) -> Mesh:
    """Arrange devices as ``data x fsdp x tensor``.

    Args:
      data: size of the data axis; -1 takes what the others leave.
      fsdp: size of the axis that also spreads the parameters.
      tensor: size of the axis that spreads a layer's products; its devices read the
        same examples and must belong to one process.
      devices: all by default.

    Returns:
      The mesh, its axes sharded automatically by the compiler.

    Raises:
      InputError: if the product is not the number of devices, or a process would have
        a part of the tensor axis only.
    """
    count = jax.device_count() if devices is None else len(devices)
    others = fsdp * tensor
    if data == -1 and others > 0 and count % others == 0:
        data = count // others
    if data * others != count or data < 1:
        raise InputError(
            f"mesh data={data} x fsdp={fsdp} x tensor={tensor} does not use {count} "
            "devices exactly; choose sizes whose product is the number of devices "
            "(data=-1 takes the rest)."
        )
    if devices is None and jax.local_device_count() % tensor:
        raise InputError(
            f"mesh tensor={tensor} does not divide the {jax.local_device_count()} "
            "devices of a process, so that two processes would need the same examples; "
            "choose a divisor."
        )
    return jax.make_mesh(
        (data, fsdp, tensor), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices
    )


def num_shares(mesh: Mesh) -> int:
    """Into how many parts a batch is divided."""
    return int(np.prod([mesh.shape.get(axis, 1) for axis in EXAMPLES]))


def check_batch_size(
    global_batch_size: int, *, num_devices: int, grad_accum_steps: int = 1
) -> None:
    """Refuse a batch that does not divide over microbatches and devices.

    Those of the tensor axis count as one: see `num_shares`.

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
    """Examples spread over all devices but those of the tensor axis."""
    return NamedSharding(mesh, P(EXAMPLES))


def shard_batch(batch: Batch, mesh: Mesh) -> dict[str, Any]:
    """Place this process's rows of a global batch.

    Args:
      batch: host arrays; the first axis is this process's share of the batch. A field
        may be a batch of its own.
      mesh: where to.

    Returns:
      Global arrays, sharded over examples.
    """
    sharding = batch_sharding(mesh)
    if "first_tokens" in batch:
        batch = {**batch, "first_tokens": _in_all(batch, sharding)}
    return {
        name: shard_batch(rows, mesh)
        if isinstance(rows, Mapping)
        else jax.make_array_from_process_local_data(sharding, np.asarray(rows))
        for name, rows in batch.items()
    }


def _in_all(batch: Batch, sharding: Any) -> np.ndarray:
    """Places among this process's tokens as places among those of all processes.

    A process's rows need not lie together in the global batch: they lie where its
    devices do, and meshes of TPUs follow the topology.
    """
    rows, length = np.shape(batch["segment_ids"])
    indices = sharding.addressable_devices_indices_map(
        (rows * jax.process_count(), length)
    )
    starts = sorted({index[0].start or 0 for index in indices.values() if index})
    chunk = rows // len(starts)  # the rows of a device, in the order of their places
    own, column = np.divmod(np.asarray(batch["first_tokens"]), length)
    row = np.asarray(starts)[own // chunk] + own % chunk
    return np.asarray(row * length + column, np.int32)


def param_shardings(
    params: Params,
    mesh: Mesh,
    *,
    tensor_rules: TensorRules = (),
) -> Params:
    """Choose a sharding for every parameter, as `state_shardings` does.

    Args:
      params: arrays or ``ShapeDtypeStruct`` leaves.
      mesh: where to.
      tensor_rules: as for `state_shardings`.

    Returns:
      The same tree with a `NamedSharding` a leaf.
    """
    specs = _specs(paths.flatten(params), mesh, tensor_rules)
    return paths.map_with_path(lambda path, _: NamedSharding(mesh, specs[path]), params)


def state_shardings(
    state: TrainState,
    mesh: Mesh,
    *,
    tensor_rules: TensorRules = (),
) -> TrainState:
    """Choose a sharding for every leaf of a state.

    Of leaves of at least `MIN_SHARDED_SIZE` elements an axis is spread over ``tensor``
    where ``tensor_rules`` name one that divides, and the largest other axis that
    divides over ``fsdp``.

    Args:
      state: arrays or ``ShapeDtypeStruct`` leaves.
      mesh: where to.
      tensor_rules: ordered ``(regex over the parameter path, axis)``, the first whose
        axis divides wins; a family's are its ``tensor_rules``.

    Returns:
      The same tree with a `NamedSharding` a leaf; optimizer state follows the
      parameter whose path its own path ends with.
    """
    params = paths.flatten(state.params)
    spec_of = _specs(params, mesh, tensor_rules)

    def sharding(path: str, leaf: Any) -> NamedSharding:
        owner = _owner(path, leaf, params)
        return NamedSharding(mesh, spec_of[owner] if owner else P())

    placed = {
        name: paths.map_with_path(sharding, getattr(state, name))
        for name in state._fields
    }
    return TrainState(**placed)


def gather_params(params: Params, shardings: Params) -> Params:
    """Give each device all of the parameters that fsdp spreads, for a forward pass.

    Without it the compiler may leave parameters where they are and send activations
    instead, which grow with the number of devices.

    Args:
      params: traced, under jit.
      shardings: where they are stored.

    Returns:
      The parameters, still spread over the tensor axis.
    """

    def gather(leaf: jax.Array, sharding: NamedSharding) -> jax.Array:
        if "fsdp" not in sharding.spec:
            return leaf
        spec = P(*(None if axis == "fsdp" else axis for axis in sharding.spec))
        whole = NamedSharding(sharding.mesh, spec)
        return jax.lax.with_sharding_constraint(leaf, whole)

    return jax.tree.map(gather, params, shardings)


def place_state(state: TrainState, shardings: TrainState) -> TrainState:
    """Put a state where it should live.

    Of several processes each has the whole state and places its part.
    """
    return jax.tree.map(place, state, shardings)


def place(
    leaf: Any, sharding: NamedSharding, *, may_alias: bool | None = None
) -> jax.Array:
    """Put an array, the same in every process, on all devices of a sharding.

    ``may_alias=False`` copies what is there already, as ``jax.device_put`` has it.
    """
    if sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding, may_alias=may_alias)
    if isinstance(leaf, jax.Array):
        if not leaf.is_fully_addressable:  # placed before, perhaps otherwise
            return jax.jit(lambda x: x, out_shardings=sharding)(leaf)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = place(jax.random.key_data(leaf), sharding)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda i: host[i])


def _specs(
    params: dict[str, Params],
    mesh: Mesh,
    tensor_rules: TensorRules,
) -> dict[str, P]:
    compiled = [(re.compile(pattern), axis) for pattern, axis in tensor_rules]
    return {
        path: _spec(leaf, mesh.shape, _tensor_axis(path, leaf, compiled, mesh.shape))
        for path, leaf in params.items()
    }


def _tensor_axis(
    path: str,
    leaf: Any,
    rules: Sequence[tuple[re.Pattern[str], int]],
    sizes: Mapping[str, int],
) -> int | None:
    """The axis spread over ``tensor``: the first that a rule names and that divides."""
    size = sizes.get("tensor", 1)
    if size == 1 or leaf.size < MIN_SHARDED_SIZE:
        return None
    axes = (axis % leaf.ndim for rule, axis in rules if rule.fullmatch(path))
    return next((axis for axis in axes if leaf.shape[axis] % size == 0), None)


def _spec(leaf: Any, sizes: Mapping[str, int], tensor_axis: int | None) -> P:
    names: list[str | None] = [None] * leaf.ndim
    if tensor_axis is not None:
        names[tensor_axis] = "tensor"
    size = sizes["fsdp"]
    free = [i for i, n in enumerate(leaf.shape) if i != tensor_axis and n % size == 0]
    if size > 1 and leaf.size >= MIN_SHARDED_SIZE and free:
        names[max(free, key=lambda i: leaf.shape[i])] = "fsdp"
    return P(*names) if any(names) else P()


def _owner(path: str, leaf: Any, params: dict[str, Any]) -> str | None:
    """The parameter that a leaf of the state is about, by path suffix and shape."""
    parts = path.split("/")
    for start in range(len(parts)):
        name = "/".join(parts[start:])
        if name in params and params[name].shape == leaf.shape:
            return name
    return None
