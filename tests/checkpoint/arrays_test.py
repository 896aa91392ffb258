# SPDX-License-Identifier: Apache-2.0
"""Arrays on disk, host and device keep their bits and dtype and share no memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jft.checkpoint import arrays


def aligned(num_bytes):
    """Return zeros at an address that a CPU device would use as it is."""
    raw = np.zeros(num_bytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + num_bytes].view(np.float32)


@pytest.mark.parametrize("num_devices", [0, 1, 4])
def test_a_placed_array_never_shares_memory_with_numpy(num_devices):
    host = aligned(1 << 16)
    like = jnp.zeros(host.shape)  # uncommitted
    if num_devices:
        mesh = Mesh(np.array(jax.devices()[:num_devices]), ("fsdp",))
        like = jax.device_put(like, NamedSharding(mesh, PartitionSpec("fsdp")))
    placed = arrays.place(host, like)
    assert (placed.sharding, placed.committed) == (like.sharding, like.committed)
    host[:] = 1
    assert not np.asarray(placed).any()


def test_a_host_copy_never_shares_memory_with_the_device():
    device = jax.device_put(np.zeros(1 << 14, np.float32), may_alias=False)
    host = arrays.to_host({"w": device})["w"]
    assert host.ctypes.data != device.unsafe_buffer_pointer()
    assert host.flags.c_contiguous


def test_orbax_gives_back_every_dtype(tmp_path):
    names = ["bool", "uint8", "int32", "uint32", "int64", "float16", "float64"]
    tree = {name: np.arange(6).reshape(2, 3).astype(name) for name in names}
    for extra in (jnp.bfloat16, jnp.float8_e4m3fn):
        tree[str(np.dtype(extra))] = np.arange(6).reshape(2, 3).astype(extra)
    tree["scalar"] = np.asarray(2.5, np.float32)
    tree["fortran/order"] = np.asfortranarray(tree["float64"])
    host = arrays.to_host(tree)
    leaves = arrays.write(tmp_path / "arrays", host)
    back = arrays.read(tmp_path / "arrays", leaves)
    assert back.keys() == tree.keys()
    for path, array in tree.items():
        assert back[path].dtype == array.dtype
        np.testing.assert_array_equal(back[path], array)
