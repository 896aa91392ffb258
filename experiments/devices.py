# SPDX-License-Identifier: Apache-2.0
"""On which devices a run computes, how batches come there, and in which dtype."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jft import train
from jft.config import Config
from jft.types import Batch


def make_mesh(config: Config) -> Any:
    """The mesh, and a batch size that divides over it."""
    sizes = config.train.mesh
    mesh = train.make_mesh(data=sizes.data, fsdp=sizes.fsdp, tensor=sizes.tensor)
    train.check_batch_size(
        config.data.global_batch_size,
        num_devices=train.num_shares(mesh),
        grad_accum_steps=config.train.grad_accum_steps,
    )
    return mesh


def make_place(config: Config) -> Callable[[Batch], Batch]:
    """The function that puts a batch on the devices, each its share of the examples."""
    mesh = make_mesh(config)
    return lambda batch: train.shard_batch(batch, mesh)


def compute_dtype(config: Config) -> Any:
    """The dtype to compute in, or None where it is that of the parameters."""
    chosen = config.train.compute_dtype
    return None if chosen == config.model.dtype else jnp.dtype(chosen)
