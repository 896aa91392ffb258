# SPDX-License-Identifier: Apache-2.0
"""Score a few tokens of each row at a time, and no token without a target.

A language model's head says ``V`` numbers of each token. ``[B, L, V]`` is by far the
largest array of a step, and of hidden words most of it is about tokens that nothing
asks for. Here the tokens of each row are put in order, those with a target first, and
the head answers for ``[B, C]`` of them at a time until no row has a target left. Rows
stay where they are, so a batch that is divided over devices stays divided.

A part's gradient is taken at once, while its logits are there, and added up in at least
float32: logits are neither kept nor computed twice, which is possible because a sum is
differentiated. Hsu et al. 2024, "Liger Kernel", arXiv 2410.10989.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jft.data.fields.padding import IGNORED
from jft.types import HIDDEN, ApplyFn, Batch, InputError, Params, PrefixFn

# (outputs, batch) -> what is differentiated, and any sums beside it
ScoreFn = Callable[[Any, Batch], tuple[jax.Array, Any]]
Leaves: TypeAlias = list[Any]
Slopes: TypeAlias = dict[int, jax.Array]  # number of a leaf -> its gradient
PartFn = Callable[[Leaves, Any], tuple[jax.Array, Any]]

SMALL = 2**22  # logits that may as well be there all at once: 16 MiB of float32
FEW = 512  # tokens below which a product with the words is no faster


@dataclass(frozen=True, kw_only=True)
class Chunks:
    """How to score tokens in parts; what is asked of outputs must be sums over them.

    ``prefix_fn`` runs up to ``boundary``, the head's: the model's number of blocks + 1.
    ``size`` is how many tokens of each row are scored at a time; None leaves it to
    `choose_size`.
    """

    prefix_fn: PrefixFn
    boundary: int
    size: int | None = None


def choose_size(batch_size: int, length: int, num_words: int) -> int | None:
    """Tokens of each row at a time: few, but enough for the products to be fast.

    None where all logits together are few.

    >>> choose_size(32, 128, 30522), choose_size(8, 512, 30522), choose_size(8, 16, 99)
    (16, 64, None)
    """
    if batch_size * length * num_words < SMALL:
        return None
    # a sixteenth: so much at most is scored beyond the last target
    least = max(-(-length // 16), -(-FEW // batch_size))
    return min(length, -(-least // 8) * 8)


def score_tokens(
    apply_fn: ApplyFn,
    params: Params,
    inputs: Batch,
    batch: Batch,
    score_fn: ScoreFn,
    *,
    key: jax.Array | None,
    chunks: Chunks | None,
) -> tuple[jax.Array, Any]:
    """Run a model's forward and score what it answers, in parts or all at once.

    Args:
      apply_fn: the forward; it must go on from activations at the head's boundary.
      params: of the model.
      inputs: what the model reads.
      batch: what the score reads; mostly the same fields, in their own dtype. Those of
        the shape ``[B, L, …]``, ``targets [B, L]`` being one, are of tokens.
      score_fn: what is asked of the outputs.
      key: of dropout, consumed; None drops nothing out. In parts, dropout within the
        head draws anew for each.
      chunks: None scores all at once.

    Returns:
      What ``score_fn`` returns, of all tokens. In parts, only the first is
      differentiated, and only in reverse.

    Raises:
      InputError: for chunks and outputs that are not one row of numbers a token, or
        scores that are no sums over tokens, which their shapes tell.
    """
    if chunks is None:
        return score_fn(apply_fn(params, inputs, key=key), batch)
    inputs = chunks.prefix_fn(params, inputs, stop=chunks.boundary, key=key)
    outputs = jax.eval_shape(lambda *args: apply_fn(*args, key=key), params, inputs)
    shape = _check_outputs(outputs, batch)
    size = choose_size(*shape) if chunks.size is None else min(chunks.size, shape[1])
    if size is None:
        return score_fn(apply_fn(params, inputs, key=key), batch)
    whole = jax.eval_shape(score_fn, outputs, batch)
    return _score_in_parts(
        apply_fn, params, inputs, batch, score_fn, key=key, size=size, whole=whole
    )


def _score_in_parts(
    apply_fn: ApplyFn,
    params: Params,
    inputs: Batch,
    batch: Batch,
    score_fn: ScoreFn,
    *,
    key: jax.Array | None,
    size: int,
    whole: Any,
) -> tuple[jax.Array, Any]:
    """Score what the head answers to inputs that were run up to it.

    ``whole`` has the shapes of the scores of all tokens at once.
    """
    shape = jnp.shape(batch["targets"])
    rest = {name: x for name, x in batch.items() if not name.startswith(HIDDEN)}
    inputs, rest = (_whole_chunks(x, shape, size) for x in (inputs, rest))
    leaves, structure = jax.tree.flatten((params, inputs, rest, key))
    targets = rest["targets"]
    num_params = len(jax.tree.leaves(params))
    of_tokens = tuple(
        i >= num_params and x.shape[:2] == targets.shape for i, x in enumerate(leaves)
    )

    def part_fn(leaves: Leaves, index: Any) -> tuple[jax.Array, Any]:
        params, inputs, batch, key = jax.tree.unflatten(structure, leaves)
        own = None if key is None else jax.random.fold_in(key, index)
        return score_fn(apply_fn(params, inputs, key=own), batch)

    asked = targets != IGNORED
    order = jnp.argsort(~asked, axis=1, stable=True)
    num_parts = (jnp.max(jnp.sum(asked, axis=1, dtype=jnp.int32)) + size - 1) // size
    parts = _Parts(part_fn, of_tokens, size)
    _check_sums(whole, jax.eval_shape(part_fn, parts.shapes(leaves, order), 0))
    return _make_sum(parts)(leaves, order, num_parts)


def _check_outputs(outputs: Any, batch: Batch) -> tuple[int, int, int]:
    """The shape ``[B, L, V]`` of the outputs."""
    shapes = jax.tree.map(lambda x: x.shape, outputs)
    targets = jnp.shape(batch["targets"])
    if not isinstance(outputs, jax.ShapeDtypeStruct) or shapes[:-1] != targets:
        raise InputError(
            f"the outputs have the shape {shapes}, the targets {targets}; only outputs "
            "[B, L, V] of targets [B, L] can be scored in parts. Leave out chunks."
        )
    batch_size, length, num_words = shapes
    return batch_size, length, num_words


def _check_sums(whole: Any, part: Any) -> None:
    """Refuse scores that grow with the tokens they are of."""
    shapes = [jax.tree.map(lambda x: x.shape, scores[1]) for scores in (whole, part)]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"scores of all tokens have the shapes {shapes[0]}, of a part of them "
            f"{shapes[1]}; only sums over tokens can be added up. Leave out chunks, or "
            "give a predict that sums."
        )


def _whole_chunks(fields: Batch, shape: tuple[int, ...], size: int) -> dict[str, Any]:
    """Fill what is of tokens up to a multiple of the size; no filler has a target."""
    missing = -shape[1] % size

    def fill(name: str, x: Any) -> Any:
        x = jnp.asarray(x)
        if x.shape[:2] != shape or not missing:
            return x
        widths = [(0, 0), (0, missing), *[(0, 0)] * (x.ndim - 2)]
        filler = IGNORED if name == "targets" else 0
        return jnp.pad(x, widths, constant_values=filler)

    return {
        name: jax.tree.map(functools.partial(fill, name), x)
        for name, x in fields.items()
    }


class _Parts(NamedTuple):
    """How leaves, of tokens or not, are scored a part at a time.

    An ``order [B, L]`` of the tokens says which of them make up a part.
    """

    score: PartFn  # of the leaves of one part, and its number
    of_tokens: tuple[bool, ...]  # which leaves are ``[B, L, …]``
    size: int

    def cut(self, leaves: Leaves, order: jax.Array, index: Any) -> Leaves:
        """The leaves of one part."""
        start = index * self.size
        positions = jax.lax.dynamic_slice_in_dim(order, start, self.size, axis=1)
        return [
            _take(x, positions) if of_token else x
            for x, of_token in zip(leaves, self.of_tokens, strict=True)
        ]

    def shapes(self, leaves: Leaves, order: jax.Array) -> Leaves:
        """Those of the leaves of one part."""
        return jax.eval_shape(self.cut, leaves, order, 0)

    def sum(self, leaves: Leaves, order: jax.Array, num_parts: jax.Array) -> Any:
        """The scores of the first parts."""

        def scored(index: Any) -> Any:
            return self.score(self.cut(leaves, order, index), index)

        start = _zeros(jax.eval_shape(scored, 0))
        return jax.lax.fori_loop(
            0, num_parts, lambda i, total: _add(total, scored(i)), start
        )

    def find_used(self, leaves: Leaves, order: jax.Array) -> set[int]:
        """What the score reads: the head's parameters, tied ones too, and its input."""
        jaxpr = jax.make_jaxpr(self.score)(self.shapes(leaves, order), 0).jaxpr
        read = {id(x) for eqn in jaxpr.eqns for x in eqn.invars}
        return {i for i in range(len(leaves)) if id(jaxpr.invars[i]) in read}

    def differentiate(
        self,
        leaves: Leaves,
        order: jax.Array,
        num_parts: jax.Array,
        moving: Sequence[int],
    ) -> tuple[Any, Slopes]:
        """`sum`, and its gradient for some of the leaves."""

        def scored(index: Any) -> tuple[Any, Slopes]:
            part = self.cut(leaves, order, index)

            def of_moving(chosen: Slopes) -> tuple[jax.Array, Any]:
                return self.score([chosen.get(i, x) for i, x in enumerate(part)], index)

            chosen = {i: part[i] for i in moving}
            return jax.value_and_grad(of_moving, has_aux=True)(chosen)

        def place(i: int, slope: jax.Array, grad: jax.Array, index: Any) -> jax.Array:
            if not self.of_tokens[i]:
                return slope + grad.astype(slope.dtype)
            start = index * self.size
            return jax.lax.dynamic_update_slice_in_dim(slope, grad, start, axis=1)

        def add(index: Any, so_far: tuple[Any, Slopes]) -> tuple[Any, Slopes]:
            (total, slopes), (part, grads) = so_far, scored(index)
            placed = {i: place(i, slopes[i], grads[i], index) for i in moving}
            return _add(total, part), placed

        start = (
            _zeros(jax.eval_shape(scored, 0)[0]),
            {
                i: (_zeros if self.of_tokens[i] else _wide_zeros)(leaves[i])
                for i in moving
            },
        )
        total, slopes = jax.lax.fori_loop(0, num_parts, add, start)
        back = jnp.argsort(order, axis=1)
        for i, x in slopes.items():
            x = _take(x, back) if self.of_tokens[i] else x
            slopes[i] = x.astype(leaves[i].dtype)
        return total, slopes


def _make_sum(parts: _Parts) -> Callable[..., tuple[jax.Array, Any]]:
    """`_Parts.sum`, whose gradient is taken in the same pass where one is asked for."""

    def forward(*primals: Any) -> tuple[Any, Slopes]:
        leaves, order, num_parts = jax.tree.map(lambda x: x.value, primals)
        used = parts.find_used(leaves, order)
        moving = [i for i, x in enumerate(primals[0]) if x.perturbed and i in used]
        return parts.differentiate(leaves, order, num_parts, moving)

    def backward(slopes: Slopes, cotangents: Any) -> tuple[Any, None, None]:
        along = cotangents[0]
        if isinstance(along, jax.custom_derivatives.SymbolicZero):
            slopes = {}
        grads = [
            slopes[i] * along.astype(slopes[i].dtype) if i in slopes else None
            for i in range(len(parts.of_tokens))
        ]
        return grads, None, None

    summed = jax.custom_vjp(parts.sum)
    summed.defvjp(forward, backward, symbolic_zeros=True)
    return summed


def _take(x: jax.Array, positions: jax.Array) -> jax.Array:
    """What ``[B, L, …]`` has at ``positions [B, C]``."""
    index = positions.reshape(*positions.shape, *(1,) * (x.ndim - 2))
    return jnp.take_along_axis(x, index, axis=1, mode="promise_in_bounds")


def _add(one: Any, other: Any) -> Any:
    return jax.tree.map(jnp.add, one, other)


def _zeros(shapes: Any) -> Any:
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)


def _wide_zeros(x: jax.Array) -> jax.Array:
    """In at least float32, in which many parts are added up without loss."""
    return jnp.zeros(x.shape, jnp.float32 if x.dtype.itemsize < 4 else x.dtype)
