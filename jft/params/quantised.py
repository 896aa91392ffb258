# SPDX-License-Identifier: Apache-2.0
"""Matrices of 8 or 4 bits a number, for a base that stays as it is.

A quantised matrix is a dict of arrays at the place of the leaf, whose first key says
what it is; its arrays have paths of their own, such as ``query/kernel/nf4``:

- ``{"int8", "absmax"}``: integers from -127 to 127, in units of 1/127 of the largest
  magnitude of their output channel;
- ``{"nf4", "absmax", "absmax_step", "absmax_mean"}``: two codes a byte, the first in
  the high half, each the nearest of 16 quantiles of a normal distribution, in units of
  the largest magnitude of their block of 64: QLoRA, Dettmers et al. 2023, arXiv
  2305.14314. Those magnitudes, less their mean, are quantised once more, in groups of
  256. The paper keeps them as 8-bit floats; here they are integers from -127 to 127, in
  units of ``absmax_step``. All in all 4.127 bits a number.

Codes are ``[out, in]``, as a checkpoint has its matrices, and blocks go along the
inputs, row after row; a row of odd length gets a zero more, the last block as many
as it lacks.
"""

import functools
import itertools
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp

from jft.paths import flatten
from jft.types import InputError, Params

Kind: TypeAlias = Literal["int8", "nf4"]
Quantised: TypeAlias = Mapping[str, jax.Array]  # see above

KINDS: tuple[str, ...] = get_args(Kind)
NUMBERS_A_CODE = {"int8": 1, "nf4": 2}
BLOCK, GROUP = 64, 256  # numbers that share a magnitude, magnitudes that share a step

# table 5 of the paper's appendix E
NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


def check_kind(kind: str) -> None:
    """Refuse what is no way to quantise."""
    if kind not in KINDS:
        raise InputError(
            f"{kind!r} is no way to quantise a base; expected one of {sorted(KINDS)}."
        )


@functools.partial(jax.jit, static_argnames="kind")
def quantize(matrix: jax.Array, kind: str) -> dict[str, jax.Array]:
    """Quantise a matrix ``[in, out]``.

    Args:
      matrix: of any floating dtype.
      kind: a key of ``KINDS``.

    Returns:
      See the module's docstring.

    >>> quantize(jnp.asarray([[1.0], [-0.5]]), "int8")["int8"].tolist()
    [[127, -64]]
    """
    rows = matrix.T.astype(jnp.float32)
    if kind == "int8":
        absmax = jnp.abs(rows).max(axis=1)
        codes = jnp.round(rows / _not_zero(absmax)[:, None] * 127)
        return {"int8": codes.astype(jnp.int8), "absmax": absmax}
    rows = jnp.pad(rows, ((0, 0), (0, rows.shape[1] % 2)))
    blocks = _in_blocks(rows, BLOCK)
    absmax = jnp.abs(blocks).max(axis=1)
    codes = _nearest(blocks / _not_zero(absmax)[:, None])
    codes = codes.reshape(-1)[: rows.size].reshape(*rows.shape[:1], -1, 2)
    mean = absmax.mean()
    groups = _in_blocks(absmax - mean, GROUP)
    step = jnp.abs(groups).max(axis=1) / 127
    deviations = jnp.round(groups / _not_zero(step)[:, None]).astype(jnp.int8)
    return {
        "nf4": codes[..., 0] << 4 | codes[..., 1],
        "absmax": deviations.reshape(-1)[: absmax.size],
        "absmax_step": step,
        "absmax_mean": mean,
    }


def dequantize_rows(
    matrix: Quantised, num_in: int, dtype: Any = jnp.float32
) -> jax.Array:
    """The matrix as its codes lie, ``[out, in]``; computed in float32, then cast."""
    if "int8" in matrix:
        unit = (matrix["absmax"] / 127)[:, None]
        return (matrix["int8"].astype(jnp.float32) * unit).astype(dtype)
    codes = matrix["nf4"]
    pairs = jnp.asarray([[high, low] for high in NF4 for low in NF4], jnp.float32)
    rows = jnp.take(pairs, codes, axis=0, mode="clip").reshape(codes.shape[0], -1)
    count, step = matrix["absmax"].size, matrix["absmax_step"]
    steps = jnp.repeat(step, GROUP, total_repeat_length=step.size * GROUP)[:count]
    deviations = matrix["absmax"].astype(jnp.float32) * steps
    absmax = deviations + matrix["absmax_mean"]
    blocks = _in_blocks(rows, BLOCK) * absmax[:, None]
    rows = blocks.reshape(-1)[: rows.size].reshape(rows.shape)
    return rows[:, :num_in].astype(dtype)


def dequantize(matrix: Quantised, num_in: int, dtype: Any = jnp.float32) -> jax.Array:
    """The matrix ``[in, out]`` that a model with these codes has."""
    return dequantize_rows(matrix, num_in, dtype).T


def in_full(leaf: Any, num_in: int, dtype: Any) -> Any:
    """A matrix as arithmetic needs it; any leaf that is not quantised as it is."""
    return dequantize(leaf, num_in, dtype) if is_quantised(leaf) else leaf


def product(x: jax.Array, matrix: Quantised) -> jax.Array:
    """Multiply ``[B, in] -> [B, out]``, in the dtype of ``x``.

    The backward pass keeps the codes and dequantises once more: the numbers that they
    stand for are never there for longer than one product takes. What is quantised has
    no gradient.
    """
    y: jax.Array = _product(x.shape[-1], x, dict(matrix))
    return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(num_in: int, x: jax.Array, matrix: Quantised) -> jax.Array:
    # only once x is there, or a compiler may dequantise all of a model at its start
    x, matrix = jax.lax.optimization_barrier((x, matrix))
    rows = dequantize_rows(matrix, num_in, x.dtype)
    y: jax.Array = jax.lax.dot_general(x, rows, (((1,), (1,)), ((), ())))
    return y


def _forward(
    num_in: int, x: jax.Array, matrix: Quantised
) -> tuple[jax.Array, Quantised]:
    return _product(num_in, x, matrix), matrix


def _backward(
    num_in: int, matrix: Quantised, cotangent: jax.Array
) -> tuple[jax.Array, None]:
    # the barrier also keeps a compiler from taking the forward's numbers, kept till now
    cotangent, matrix = jax.lax.optimization_barrier((cotangent, matrix))
    return cotangent @ dequantize_rows(matrix, num_in, cotangent.dtype), None


_product.defvjp(_forward, _backward)


def is_quantised(tree: Any) -> bool:
    """Whether a part of a tree of parameters is a quantised matrix."""
    return isinstance(tree, Mapping) and any(kind in tree for kind in KINDS)


def has_quantised(params: Params) -> bool:
    """Whether any matrix of a model is quantised."""
    return any(map(is_quantised, flatten_whole(params).values()))


def flatten_whole(params: Params) -> dict[str, Any]:
    """``{path: leaf}`` in which a quantised matrix is one leaf, at the path it had."""
    return flatten(params, is_leaf=is_quantised)


def quantised_parent(path: str) -> str | None:
    """The path of the matrix that an array is a part of, None of any other array.

    >>> quantised_parent("query/kernel/nf4"), quantised_parent("query/kernel")
    ('query/kernel', None)
    """
    parent = path.rpartition("/")[0]
    return parent if parent.rpartition("/")[2] == "kernel" else None


def num_numbers(path: str, leaf: Any) -> int:
    """How many numbers of a model an array holds; what scales a matrix holds none."""
    if quantised_parent(path) is None:
        return int(leaf.size)
    return int(leaf.size) * NUMBERS_A_CODE.get(path.rpartition("/")[2], 0)


def _in_blocks(x: jax.Array, size: int) -> jax.Array:
    """All numbers as ``[blocks, size]``, the last block filled up with zeros."""
    flat = x.reshape(-1)
    return jnp.pad(flat, (0, -flat.size % size)).reshape(-1, size)


def _not_zero(x: jax.Array) -> jax.Array:
    return jnp.where(x > 0, x, 1)


def _nearest(x: jax.Array) -> jax.Array:
    """The code of the nearest of ``NF4``: how many midpoints lie below."""
    code = jnp.zeros(x.shape, jnp.uint8)
    for low, high in itertools.pairwise(NF4):
        code += (x > (low + high) / 2).astype(jnp.uint8)
    return code
