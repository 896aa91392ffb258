# SPDX-License-Identifier: Apache-2.0
"""New parameters: their shapes without memory, and their values from a key."""

import functools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jft.models import Family
from jft.paths import flatten, unflatten
from jft.types import Params


def abstract_params(
    family: Family, config: Any, *, task: str, dtype: Any = jnp.float32
) -> Params:
    """Return the parameters' shapes and dtype; nothing is allocated.

    Args:
      family: the family's record.
      config: what ``family.config_from_dict`` returned.
      task: a key of ``family.heads``.
      dtype: the dtype of every leaf.

    Returns:
      Nested dicts of ``jax.ShapeDtypeStruct``.
    """
    recipe = _Recipe(family, config, family.check_task(task), jnp.dtype(dtype))
    return jax.eval_shape(functools.partial(_draw, recipe), jax.random.key(0))


def init_params(
    family: Family,
    config: Any,
    *,
    task: str,
    key: jax.Array,
    dtype: Any = jnp.float32,
    only: Sequence[str] = (".*",),
) -> Params:
    """Draw parameters as transformers initialises them.

    A leaf's value depends on the key and its path alone, so that drawing the head
    alone gives the head of a full draw.

    Args:
      family: the family's record.
      config: what ``family.config_from_dict`` returned.
      task: a key of ``family.heads``.
      key: a typed key; consumed.
      dtype: the dtype of every leaf; drawn in float32, then cast.
      only: regexes of the paths to draw; a leaf that none matches in full stays
        abstract (``jax.ShapeDtypeStruct``).

    Returns:
      Nested dicts, one leaf a parameter.
    """
    recipe = _Recipe(family, config, family.check_task(task), jnp.dtype(dtype))
    abstract = flatten(abstract_params(family, config, task=task, dtype=dtype))
    return unflatten(abstract | _draw_only(recipe, key, tuple(only)))


def matches_any(patterns: Sequence[str], path: str) -> bool:
    """Say whether one of the regexes matches all of the path.

    >>> matches_any(["classifier/.*"], "classifier/bias")
    True
    """
    return any(re.fullmatch(pattern, path) for pattern in patterns)


class _Recipe(NamedTuple):
    """What tells the parameters of a model; of equal ones jax keeps the programs."""

    family: Family
    config: Any
    task: str
    dtype: Any


@functools.partial(jax.jit, static_argnums=0)
def _draw(recipe: _Recipe, key: jax.Array) -> Params:
    family, config, task, dtype = recipe
    shapes = family.example_batch(config, task)
    batch = {name: jnp.zeros(x.shape, x.dtype) for name, x in shapes.items()}
    params = family.make_module(config, task).init(key, batch)["params"]
    return jax.tree.map(lambda leaf: leaf.astype(dtype), params)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _draw_only(
    recipe: _Recipe, key: jax.Array, only: tuple[str, ...]
) -> dict[str, jax.Array]:
    """Draw some of the leaves; the forward that linen traces is dropped."""
    drawn = flatten(_draw(recipe, key))
    return {path: drawn[path] for path in drawn if matches_any(only, path)}
