# SPDX-License-Identifier: Apache-2.0
"""Arrays between devices, the host and an Orbax folder; the only user of Orbax.

A tree is stored flat, ``{path: array}``: ``None`` holes and optax's named tuples need
no description on the disk, and a missing leaf can be named. Every leaf is whole on
the host, so the files do not depend on the number of devices or processes: of several,
the main one writes all of them, and each reads all of them.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jft import paths, processes, train
from jft.checkpoint.manifest import CheckpointError, CorruptError, Leaf, leaf_digest


def to_host(tree: Any) -> dict[str, np.ndarray]:
    """Copy a tree of arrays to ``{path: numpy array}``. Collective.

    It is a copy even where device and host share memory, as on a CPU: the caller may
    donate the arrays at once. All transfers start before the first is awaited. Of
    several processes, only the main one keeps anything.

    Raises:
      CheckpointError: if two leaves have one path, or a leaf is no plain array.
    """
    flat = paths.flatten(tree)
    if len(flat) != len(jax.tree.leaves(tree)):
        raise CheckpointError(
            "two leaves of the tree have the same path: a key contains a '/'. "
            f"Rename it; the paths are {sorted(flat)}."
        )
    for path, leaf in flat.items():
        if not isinstance(leaf, jax.Array | np.ndarray):
            raise CheckpointError(f"{path} is a {type(leaf).__name__}, not an array.")
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise CheckpointError(
                f"{path} is a typed key: give its jax.random.key_data."
            )
    if not processes.is_main():
        for leaf in flat.values():
            if not processes.is_here(leaf):
                processes.whole(leaf)  # the main process needs this one's part
        return {}
    here = jax.device_get({p: x for p, x in flat.items() if processes.is_here(x)})
    return {
        path: np.array(here[path] if path in here else processes.whole(leaf), order="C")
        for path, leaf in flat.items()
    }


def write(folder: Path, host: Mapping[str, np.ndarray]) -> dict[str, Leaf]:
    """Store arrays in a new folder and return what each of them was."""
    leaves = {
        path: Leaf(array.shape, str(array.dtype), leaf_digest(array))
        for path, array in host.items()
    }
    # Orbax refuses arrays of no elements; the manifest alone remembers those
    tree = {path: array for path, array in host.items() if array.size}
    if jax.process_count() == 1:
        from orbax.checkpoint import v1 as ocp

        ocp.save(folder, tree)
    else:
        _write_alone(folder, tree)
    return leaves


def read(folder: Path, leaves: Mapping[str, Leaf]) -> dict[str, np.ndarray]:
    """Read the leaves from a folder and compare each with its digest.

    Raises:
      CorruptError: if the folder is unreadable, or a leaf is absent or differs.
    """
    from orbax.checkpoint import v1 as ocp

    try:
        with _alone(ocp.Context()):
            stored: dict[str, np.ndarray] = ocp.load(folder)
    except Exception as error:  # Orbax lets out its own, TensorStore's and json's
        raise CorruptError(f"{folder} cannot be read: {error!r}") from error
    host: dict[str, np.ndarray] = {}
    for path, leaf in leaves.items():
        empty = np.zeros(leaf.shape, np.dtype(leaf.dtype)) if 0 in leaf.shape else None
        array = stored.get(path, empty)
        if array is None:
            raise CorruptError(f"leaf {path} is missing in {folder}.")
        found = Leaf(tuple(array.shape), str(array.dtype), leaf_digest(array))
        if found != leaf:
            raise CorruptError(
                f"leaf {path} in {folder} is not what was saved: "
                f"saved {leaf}, found {found}."
            )
        host[path] = array
    return host


def place(array: np.ndarray, like: Any) -> jax.Array:
    """Put a host array where ``like`` is, in a buffer of its own.

    A CPU device shares memory with numpy where the alignment allows, whatever
    ``device_put(may_alias=False)`` says; such a buffer is lost to donation, so it is
    copied once more. Where ``like`` is an uncommitted array the result is one too, so
    that it combines with arrays on a mesh as in a fresh run.

    Raises:
      CheckpointError: if this JAX cannot hold the dtype.
    """
    committed = getattr(like, "committed", True)
    sharding = getattr(like, "sharding", None) if committed else None
    put = jax.device_put(array) if sharding is None else train.place(array, sharding)
    placed = jnp.copy(put)
    if placed.dtype != array.dtype:
        raise CheckpointError(
            f"an array of {array.dtype} was saved, this JAX makes it {placed.dtype}: "
            "set jax_enable_x64 as the run that saved it did."
        )
    return placed


def _write_alone(folder: Path, tree: Mapping[str, np.ndarray]) -> None:
    """Write in one of several processes, which v1 of Orbax does only in all at once."""
    import orbax.checkpoint as v0

    index = jax.process_index()
    alone = v0.options.MultiprocessingOptions(
        primary_host=index, active_processes={index}, barrier_sync_key_prefix="write"
    )
    handler = v0.PyTreeCheckpointHandler(multiprocessing_options=alone)
    with v0.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
        checkpointer.save(folder, args=v0.args.PyTreeSave(dict(tree)))


def _alone(context: Any) -> AbstractContextManager[Any]:
    """Let this process read without waiting for the others."""
    index = jax.process_index()
    context.multiprocessing.primary_host = index
    context.multiprocessing.active_processes = {index}
    context.multiprocessing.barrier_sync_key_prefix = f"read-{index}"
    return context
