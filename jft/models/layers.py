# SPDX-License-Identifier: Apache-2.0
"""The parts that families share: products, norms, embeddings, the run of blocks.

Functions create a submodule of the given name in the module that calls them, so a
parameter's path is the caller's path and that name. All compute in the dtype of the
parameters, norms and softmax in at least float32; no dtype or rank is promoted in
silence.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jft.models.arrays import along_last, at_least_float32
from jft.models.nonlinearities import ACTIVATIONS
from jft.models.remat import policy_of

Init = Callable[..., jax.Array]
normal: Callable[[float], Init] = nn.initializers.normal


def dense(
    x: jax.Array, features: int, *, name: str, init: Init, bias: bool = True
) -> jax.Array:
    """Map the last axis to ``features``.

    The other axes are flattened to one: for a weight's gradient XLA then contracts one
    axis, not two, which halves its time on CPU.
    """
    layer = nn.Dense(features, use_bias=bias, kernel_init=init, name=name)
    y: jax.Array = layer(x.reshape(-1, x.shape[-1]))
    return y.reshape(*x.shape[:-1], features)


def activate(x: jax.Array, name: str) -> jax.Array:
    """Apply the activation of that Hugging Face name."""
    return ACTIVATIONS[name](x)


class PatchConv(nn.Module):
    """A convolution whose stride is its size: one product over cut-out patches.

    What is left over at the right and at the bottom is not read.
    """

    features: int
    kernel_size: tuple[int, int]
    init: Init
    use_bias: bool = True

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Map ``[B, height, width, channels]`` to ``[B, L, D]``, row by row."""
        (down, across), channels = self.kernel_size, images.shape[-1]
        rows, columns = images.shape[1] // down, images.shape[2] // across
        kernel = self.param(
            "kernel", self.init, (down, across, channels, self.features)
        )
        pixels = images.astype(kernel.dtype)[:, : rows * down, : columns * across]
        patches = pixels.reshape(-1, rows, down, columns, across, channels)
        flat = patches.transpose(0, 1, 3, 2, 4, 5).reshape(-1, down * across * channels)
        tokens: jax.Array = flat @ kernel.reshape(flat.shape[-1], -1)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            tokens = tokens + bias[None]
        return tokens.reshape(len(images), rows * columns, -1)


class Bias(nn.Module):
    """A bias without a matrix, for a layer whose matrix is another's."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``[..., D] -> [..., D]``."""
        bias: jax.Array = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        return x + along_last(bias, x)


class LayerNorm(nn.Module):
    """Centre and scale the last axis; ``use_bias=False`` leaves out the shift.

    linen's own mixes dtypes in bf16, which strict promotion forbids.
    """

    eps: float
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``[..., D] -> [..., D]``."""
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, shape)
        return _layer_norm(x, scale, bias, eps=self.eps)


@functools.partial(jax.jit, static_argnames="eps")  # traced once for all layers
def _layer_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array | None, *, eps: float
) -> jax.Array:
    wide = at_least_float32(x)
    centred = wide - wide.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    scale = along_last(at_least_float32(scale), x)
    normed = centred * jax.lax.rsqrt(variance + eps) * scale
    if bias is not None:
        normed = normed + along_last(at_least_float32(bias), x)
    return normed.astype(x.dtype)


class RMSNorm(nn.Module):
    """Scale the last axis to a root mean square of one.

    ``offset`` is added to the scale: Gemma keeps it around 0 and multiplies by 1 +
    scale. Zhang and Sennrich 2019, arXiv 1910.07467.
    """

    eps: float
    offset: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``[..., D] -> [..., D]``."""
        start = nn.initializers.zeros if self.offset else nn.initializers.ones
        scale = at_least_float32(self.param("scale", start, (x.shape[-1],)))
        wide = at_least_float32(x)
        mean_square = jnp.square(wide).mean(axis=-1, keepdims=True)
        normed = wide * jax.lax.rsqrt(mean_square + self.eps)
        return (normed * along_last(scale + self.offset, x)).astype(x.dtype)


class Embed(nn.Module):
    """A table of vectors, by id; it can also score vectors against every row.

    ``padding_id`` is torch's ``padding_idx``: the row of that id starts at zero, and
    looking it up gives it no gradient.
    """

    num_embeddings: int
    features: int
    init: Init
    padding_id: int | None = None

    def setup(self) -> None:
        """Make the table ``[V, D]``."""
        shape, row = (self.num_embeddings, self.features), self.padding_id

        def draw(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
            table = self.init(key, shape)
            return table if row is None else table.at[row].set(0)

        self.embedding: jax.Array = self.param("embedding", draw, shape)

    def __call__(self, ids: jax.Array) -> jax.Array:
        """Map ids ``[...]`` to vectors ``[..., D]``."""
        vectors: jax.Array = jnp.take(self.embedding, ids, axis=0, mode="clip")
        if self.padding_id is None:
            return vectors
        is_padding = (ids == self.padding_id % self.num_embeddings)[..., None]
        still: jax.Array = jax.lax.stop_gradient(vectors)
        return jnp.where(is_padding, still, vectors)

    def attend(self, x: jax.Array) -> jax.Array:
        """Score ``[..., D]`` against every row: ``[..., V]``; the tied output layer."""
        flat = x.reshape(-1, x.shape[-1]) @ self.embedding.T.astype(x.dtype)
        return flat.reshape(*x.shape[:-1], self.num_embeddings)


class Blocks(nn.Module):
    """Blocks by number: ``make(i)`` makes block ``i``, with ``name=str(i)``.

    Every family's blocks run here, ``x -> block(x, *args, **options)``. They are
    unrolled, so compiling takes longer the more there are: a scan over stacked
    parameters would compile one, but would join open and frozen layers in one array:
    the backward pass would then run below the lowest open layer. What each keeps for
    its backward pass is for `jft.models.remat` to say.
    """

    make: Callable[[int], nn.Module]

    @nn.compact
    def __call__(
        self,
        x: Any,
        blocks: range,
        *args: Any,
        from_first: Callable[[Any], Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> Any:
        """Run the given blocks one after another.

        ``from_first(block 0)`` gives options for all of them: T5 keeps its table of
        relative positions in the first block.
        """
        first = None
        if from_first is not None and blocks:
            first = self.make(0)
            options = {**options, **from_first(first)}
        for i in blocks:
            block = first if first is not None and i == 0 else self.make(i)

            def run(block: nn.Module, x: Any) -> Any:
                return block(x, *args, **options)

            policy = policy_of("/".join((*self.path, str(i))))
            x = (run if policy is None else nn.remat(run, policy=policy))(block, x)
        return x


def ids_or(batch: Mapping[str, Any], name: str, default: Any) -> jax.Array:
    """The batch's integer field ``[B, L]``, or a constant in the shape of the ids."""
    if name in batch:
        return jnp.asarray(batch[name], jnp.int32)
    if isinstance(default, int):
        return jnp.full(batch["input_ids"].shape, default, jnp.int32)
    return jnp.broadcast_to(default, batch["input_ids"].shape)
