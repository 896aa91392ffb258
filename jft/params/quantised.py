# SPDX-License-Identifier: Apache-2.0
"""Matrices of 8 or 4 bits a number, for a base that stays as it is.

A quantised matrix is a dict of arrays at the place of the leaf, one of whose keys says
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

Beside them stands ``source``, the text of what `describe_leaf` says of the matrix that
was quantised, as bytes: what was trained over the one is known over the other.
"""

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jft.models.arrays import at_least_float32
from jft.params.leaf_digest import describe_leaf
from jft.paths import flatten
from jft.types import InputError, Params

Kind: TypeAlias = Literal["int8", "nf4"]
Quantised: TypeAlias = Mapping[str, Any]  # of arrays, see above

KINDS: tuple[str, ...] = get_args(Kind)
NUMBERS_A_CODE = {"int8": 1, "nf4": 2}
SOURCE = "source"
# the keys of the arrays that a quantised matrix is made of
ARRAYS = frozenset({*KINDS, "absmax", "absmax_step", "absmax_mean", SOURCE})
BLOCK, GROUP = 64, 256  # numbers that share a magnitude, magnitudes that share a step
PARTS, SMALL = 4, 2**14  # the most parts of a product; of fewer codes it is one

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
      kind: one of ``KINDS``.

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


def quantize_known(matrix: Any, kind: str) -> dict[str, Any]:
    """Quantise a matrix, with its ``source`` beside it where it can be told."""
    made: dict[str, Any] = quantize(jnp.asarray(matrix), kind)
    source = describe_leaf(matrix)
    if source is None:
        return made
    return {**made, SOURCE: jnp.asarray(np.frombuffer(source.encode(), np.uint8))}


def source_of(matrix: Quantised) -> str | None:
    """What `describe_leaf` said of a matrix before it was quantised, if it was kept."""
    if SOURCE not in matrix:
        return None
    return np.asarray(jax.device_get(matrix[SOURCE])).tobytes().decode()


def dequantize(matrix: Quantised, num_in: int, dtype: Any = jnp.float32) -> jax.Array:
    """The matrix ``[in, out]`` that the codes stand for.

    It is computed in float32, then cast.
    """
    return _rows(matrix, num_in, dtype).T


def in_full(leaf: Any, num_in: int, dtype: Any) -> Any:
    """A matrix as arithmetic needs it; any leaf that is not quantised as it is."""
    return dequantize(leaf, num_in, dtype) if is_quantised(leaf) else leaf


def product(x: jax.Array, matrix: Quantised) -> jax.Array:
    """Multiply ``[B, in] -> [B, out]``, in the dtype of ``x``.

    The backward pass keeps the codes and dequantises once more, and both do so a part
    of the outputs at a time, so that the numbers are never there for longer than they
    are used. The parts are taken in a loop: of what is not in one, compilers may take
    the forward's numbers for the backward too, and compute all of a model's at its
    start. What is quantised has no gradient.
    """
    arrays = {name: part for name, part in matrix.items() if name != SOURCE}
    return _product(x.shape[-1], x, arrays)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(num_in: int, x: jax.Array, matrix: Quantised) -> jax.Array:
    num_parts, num_out = _num_parts(matrix), _codes(matrix).shape[0]

    def put(i: Any, y: jax.Array) -> jax.Array:
        part = x @ _rows(matrix, num_in, x.dtype, part=i, num_parts=num_parts).T
        first = i * (num_out // num_parts)
        return jax.lax.dynamic_update_slice_in_dim(y, part, first, axis=1)

    return _for_each(num_parts, put, x, (x.shape[0], num_out))


def _forward(
    num_in: int, x: jax.Array, matrix: Quantised
) -> tuple[jax.Array, Quantised]:
    return _product(num_in, x, matrix), matrix


def _backward(
    num_in: int, matrix: Quantised, cotangent: jax.Array
) -> tuple[jax.Array, None]:
    num_parts, size = _num_parts(matrix), cotangent.shape[1] // _num_parts(matrix)

    def add(i: Any, total: jax.Array) -> jax.Array:
        share = jax.lax.dynamic_slice_in_dim(cotangent, i * size, size, axis=1)
        rows = _rows(matrix, num_in, share.dtype, part=i, num_parts=num_parts)
        more = jnp.matmul(share, rows, preferred_element_type=total.dtype)
        return jnp.where(i == 0, more, total + more)

    wide = at_least_float32(cotangent)
    total = _for_each(num_parts, add, wide, (cotangent.shape[0], num_in))
    return total.astype(cotangent.dtype), None


_product.defvjp(_forward, _backward)


def _for_each(
    num_parts: int,
    body: Callable[[Any, jax.Array], jax.Array],
    x: jax.Array,
    shape: tuple[int, int],
) -> jax.Array:
    """Run ``body(part, result)``, whose first part makes nothing of what it is given.

    That is a number of ``x``: a constant would be there from the step's start.
    """
    start = jnp.broadcast_to(x[:1, :1], shape)
    return jax.lax.fori_loop(0, num_parts, body, start)


def _codes(matrix: Quantised) -> jax.Array:
    return jnp.asarray(matrix["int8"] if "int8" in matrix else matrix["nf4"])


def _rows(
    matrix: Quantised, num_in: int, dtype: Any, *, part: Any = 0, num_parts: int = 1
) -> jax.Array:
    """The numbers of one of equal parts, ``[out / num_parts, in]``, as its codes lie.

    All that is made on the way is of the part alone.
    """

    def own(x: jax.Array) -> jax.Array:
        size = x.shape[0] // num_parts
        return jax.lax.dynamic_slice_in_dim(x, part * size, size)

    codes, absmax = own(_codes(matrix)), own(jnp.asarray(matrix["absmax"]))
    if "int8" in matrix:
        return (codes.astype(jnp.float32) * (absmax / 127)[:, None]).astype(dtype)
    groups = (part * absmax.size + jnp.arange(absmax.size)) // GROUP
    steps = jnp.take(jnp.asarray(matrix["absmax_step"]), groups, mode="clip")
    units = absmax.astype(jnp.float32) * steps + jnp.asarray(matrix["absmax_mean"])
    pairs = jnp.asarray([[high, low] for high in NF4 for low in NF4], jnp.float32)
    rows = jnp.take(pairs, codes, axis=0, mode="clip").reshape(codes.shape[0], -1)
    blocks = _in_blocks(rows, BLOCK) * units[:, None]
    rows = blocks.reshape(-1)[: rows.size].reshape(rows.shape)
    return rows[:, :num_in].astype(dtype)


def _num_parts(matrix: Quantised) -> int:
    """In how many parts a product is taken, each of whole rows and whole blocks.

    One where the matrix is small, or divides into no such parts.
    """
    codes = _codes(matrix)
    whole = BLOCK // NUMBERS_A_CODE["nf4"] if "nf4" in matrix else 1  # codes
    if codes.size < SMALL:
        return 1
    fits = (n for n in range(PARTS, 1, -1) if codes.shape[0] % n == 0)
    return next((n for n in fits if codes.size // n % whole == 0), 1)


def kind_of(tree: Any) -> str | None:
    """How a part of a tree of parameters is quantised; None: it is not."""
    if not isinstance(tree, Mapping):
        return None
    return next((kind for kind in KINDS if kind in tree), None)


def is_quantised(tree: Any) -> bool:
    """Whether a part of a tree of parameters is a quantised matrix."""
    return kind_of(tree) is not None


def has_quantised(params: Params) -> bool:
    """Whether any matrix of a model is quantised."""
    return any(map(is_quantised, flatten_whole(params).values()))


def flatten_whole(params: Params) -> dict[str, Any]:
    """``{path: leaf}`` in which a quantised matrix is one leaf, at the path it had."""
    return flatten(params, is_leaf=is_quantised)


def whole_path(path: str) -> str:
    """The path of the matrix that an array is a part of; of any other array its own.

    >>> whole_path("query/kernel/nf4"), whole_path("query/kernel")
    ('query/kernel', 'query/kernel')
    >>> whole_path("process/kernel/variance")
    'process/kernel/variance'
    """
    parent, _, name = path.rpartition("/")
    return parent if name in ARRAYS and parent.endswith("/kernel") else path


def num_numbers(path: str, leaf: Any) -> int:
    """How many numbers of a model an array holds; what scales a matrix holds none."""
    if whole_path(path) == path:
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
