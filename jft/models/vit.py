# SPDX-License-Identifier: Apache-2.0
"""Vision transformer with a classifier, as ``transformers.ViTForImageClassification``.

The modules nest as the checkpoint's keys do. The forward runs in stages, so that a
frozen prefix can be computed once: stage 0 embeds, stage i+1 is block i, the final
norm closes the last block's stage n, stage n+1 classifies the first token. Stage k
uses the parameters of layer k and no other.

Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", arXiv 2010.11929.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float

from jft.models.activations import ACTIVATIONS
from jft.models.family import Family
from jft.models.vit_config import ViTConfig, config_from_dict
from jft.types import InputError, LayerIndex

AnyArray = jax.Array | np.ndarray


def _dense(
    x: jax.Array, config: ViTConfig, *, features: int, name: str, bias: bool = True
) -> jax.Array:
    """Map ``[N, in] -> [N, features]`` with the checkpoint's initialisation.

    transformers truncates that normal at ±2, a hundred standard deviations away.
    """
    init = nn.initializers.normal(config.initializer_range)
    y: jax.Array = nn.Dense(features, use_bias=bias, kernel_init=init, name=name)(x)
    return y


def _dropout(x: jax.Array, rate: float, *, deterministic: bool) -> jax.Array:
    y: jax.Array = nn.Dropout(rate)(x, deterministic)
    return y


def _at_least_float32(x: jax.Array) -> jax.Array:
    """Widen half precision: means and small probabilities are lost in it."""
    return x.astype(jnp.float32) if x.dtype.itemsize < 4 else x


class _LayerNorm(nn.Module):
    """Norm over the last axis of ``[N, D]``.

    linen's own mixes dtypes in bf16, which strict promotion forbids.
    """

    config: ViTConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1],)
        scale = _at_least_float32(self.param("scale", nn.initializers.ones, shape))
        bias = _at_least_float32(self.param("bias", nn.initializers.zeros, shape))
        wide = _at_least_float32(x)
        centred = wide - wide.mean(axis=-1, keepdims=True)
        variance = jnp.square(centred).mean(axis=-1, keepdims=True)
        normed = centred * jax.lax.rsqrt(variance + self.config.layer_norm_eps)
        y: jax.Array = (normed * scale[None] + bias[None]).astype(x.dtype)
        return y


class _PatchProjection(nn.Module):
    """The convolution whose stride is its size: one product over cut-out patches."""

    config: ViTConfig

    @nn.compact
    def __call__(self, images: AnyArray) -> jax.Array:
        """Map ``[B, height, width, channels]`` to ``[B, L - 1, D]``."""
        cfg = self.config
        (rows, columns), (down, across) = cfg.grid, cfg.patch_size
        shape = (down, across, cfg.num_channels, cfg.hidden_size)
        init = nn.initializers.normal(cfg.initializer_range)
        kernel = self.param("kernel", init, shape)
        bias = self.param("bias", nn.initializers.zeros, (cfg.hidden_size,))
        pixels = jnp.asarray(images, kernel.dtype)[:, : rows * down, : columns * across]
        patches = pixels.reshape(-1, rows, down, columns, across, cfg.num_channels)
        flat = patches.transpose(0, 1, 3, 2, 4, 5).reshape(-1, np.prod(shape[:3]))
        tokens: jax.Array = flat @ kernel.reshape(flat.shape[-1], -1) + bias[None]
        return tokens.reshape(len(images), rows * columns, -1)


class _PatchEmbeddings(nn.Module):
    config: ViTConfig

    @nn.compact
    def __call__(self, images: AnyArray) -> jax.Array:
        patches: jax.Array = _PatchProjection(self.config, name="projection")(images)
        return patches


class _Embeddings(nn.Module):
    """Patches, the class token before them, and positions."""

    config: ViTConfig

    @nn.compact
    def __call__(self, images: AnyArray, deterministic: bool) -> jax.Array:
        cfg = self.config
        expected = (*cfg.image_size, cfg.num_channels)
        if images.shape[1:] != expected:
            raise InputError(
                f"images have shape {tuple(images.shape)}; this model takes "
                f"[B, height, width, channels] = [B, {', '.join(map(str, expected))}]. "
                "Resize them with the checkpoint's processor."
            )
        patches = _PatchEmbeddings(cfg, name="patch_embeddings")(images)
        batch, num_patches, width = patches.shape
        init = nn.initializers.normal(cfg.initializer_range)
        cls_token = self.param("cls_token", init, (1, 1, width))
        positions = self.param("position_embeddings", init, (1, num_patches + 1, width))
        first = jnp.broadcast_to(cls_token, (batch, 1, width))
        tokens = jnp.concatenate([first, patches], axis=1) + positions
        return _dropout(tokens, cfg.hidden_dropout_prob, deterministic=deterministic)


class _SelfAttention(nn.Module):
    config: ViTConfig

    @nn.compact
    def __call__(self, tokens: jax.Array, batch: int, deterministic: bool) -> jax.Array:
        cfg = self.config
        heads, width = cfg.num_attention_heads, cfg.hidden_size

        def project(name: str) -> jax.Array:  # [B*L, D] -> [B, H, L, K]
            x = _dense(tokens, cfg, features=width, name=name, bias=cfg.qkv_bias)
            return x.reshape(batch, -1, heads, width // heads).transpose(0, 2, 1, 3)

        query, key, value = project("query"), project("key"), project("value")
        scale = jnp.asarray((width // heads) ** -0.5, query.dtype)
        scores = (query * scale) @ key.swapaxes(-1, -2)
        probs: jax.Array = nn.softmax(_at_least_float32(scores)).astype(scores.dtype)
        rate = cfg.attention_probs_dropout_prob
        probs = _dropout(probs, rate, deterministic=deterministic)
        return (probs @ value).transpose(0, 2, 1, 3).reshape(-1, width)


class _Output(nn.Module):
    """The projection back to the width of the residual stream, then dropout."""

    config: ViTConfig

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        cfg = self.config
        x = _dense(x, cfg, features=cfg.hidden_size, name="dense")
        return _dropout(x, cfg.hidden_dropout_prob, deterministic=deterministic)


class _Attention(nn.Module):
    config: ViTConfig

    @nn.compact
    def __call__(self, tokens: jax.Array, batch: int, deterministic: bool) -> jax.Array:
        attention = _SelfAttention(self.config, name="attention")
        output = _Output(self.config, name="output")
        mixed: jax.Array = output(
            attention(tokens, batch, deterministic), deterministic
        )
        return mixed


class _Intermediate(nn.Module):
    config: ViTConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        cfg = self.config
        x = _dense(x, cfg, features=cfg.intermediate_size, name="dense")
        return ACTIVATIONS[cfg.hidden_act](x)


class _Block(nn.Module):
    """Attention, then the MLP, each normed before and added after."""

    config: ViTConfig

    @nn.compact
    def __call__(self, tokens: jax.Array, batch: int, deterministic: bool) -> jax.Array:
        cfg = self.config
        normed = _LayerNorm(cfg, name="layernorm_before")(tokens)
        attended = _Attention(cfg, name="attention")(normed, batch, deterministic)
        tokens = tokens + attended
        normed = _LayerNorm(cfg, name="layernorm_after")(tokens)
        hidden = _Intermediate(cfg, name="intermediate")(normed)
        output: jax.Array = _Output(cfg, name="output")(hidden, deterministic)
        return tokens + output


class _Layers(nn.Module):
    config: ViTConfig

    @nn.compact
    def __call__(
        self, tokens: jax.Array, blocks: range, batch: int, deterministic: bool
    ) -> jax.Array:
        for i in blocks:
            tokens = _Block(self.config, name=str(i))(tokens, batch, deterministic)
        return tokens


class _Encoder(nn.Module):
    config: ViTConfig

    @nn.compact
    def __call__(
        self, tokens: jax.Array, blocks: range, batch: int, deterministic: bool
    ) -> jax.Array:
        layers = _Layers(self.config, name="layer")
        mixed: jax.Array = layers(tokens, blocks, batch, deterministic)
        return mixed


class _Backbone(nn.Module):
    """The stages from ``start`` to before ``stop``, less the head's."""

    config: ViTConfig

    @nn.compact
    def __call__(
        self, x: AnyArray, start: int, stop: int, deterministic: bool
    ) -> AnyArray:
        cfg = self.config
        last = cfg.num_hidden_layers  # the stage that the final norm closes
        if start == 0:
            x = _Embeddings(cfg, name="embeddings")(x, deterministic)
        blocks = range(max(start, 1) - 1, min(stop, last + 1) - 1)
        if not blocks:
            return x
        # flat tokens: XLA contracts one axis, not two, for a weight's gradient
        shape = x.shape
        tokens: jax.Array = jnp.asarray(x).reshape(-1, shape[-1])
        encoder = _Encoder(cfg, name="encoder")
        tokens = encoder(tokens, blocks, shape[0], deterministic)
        if start <= last < stop:
            tokens = _LayerNorm(cfg, name="layernorm")(tokens)
        return tokens.reshape(shape)


class ViT(nn.Module):
    """The classifier; its parameter paths are the keys of the checkpoint."""

    config: ViTConfig

    @nn.compact
    def __call__(
        self,
        inputs: Float[AnyArray, "B height width channels"] | Float[AnyArray, "B L D"],
        *,
        start: int = 0,
        stop: int | None = None,
        deterministic: bool = True,
    ) -> Float[AnyArray, "B C"] | Float[AnyArray, "B L D"]:
        """Run the stages from boundary ``start`` to boundary ``stop``.

        ``f(x, start=0, stop=k)`` then ``f(_, start=k)`` is ``f(x)`` for every k,
        dropout included when both are given the same key.

        Args:
          inputs: images for ``start=0``, in any float dtype (the parameters' dtype
            rules); else what a call with ``stop=start`` returned.
          start: the first stage to run, from 0 to n + 1.
          stop: the stage to stop before; None for all, which returns logits.
          deterministic: False drops out, with the key ``rngs={"dropout": key}``.

        Returns:
          Logits ``[B, C]``, or hidden states ``[B, L, D]`` at boundary ``stop``.
        """
        num_stages = self.config.num_hidden_layers + 2
        stop = num_stages if stop is None else stop
        if not 0 <= start < stop <= num_stages:
            raise InputError(
                f"stages start={start}, stop={stop} do not fit: this model has stages "
                f"0 to {num_stages - 1}, so 0 <= start < stop <= {num_stages}."
            )
        backbone = _Backbone(self.config, name="vit")
        x: AnyArray = backbone(inputs, start, stop, deterministic)
        if stop == num_stages:
            first = jnp.asarray(x)[:, 0]
            width = self.config.num_labels
            return _dense(first, self.config, features=width, name="classifier")
        return x


def make_layer_index(config: ViTConfig) -> LayerIndex:
    """Map each parameter path to its depth: the stage of the forward that uses it.

    Embeddings 0, block i is i + 1, the final norm joins the last block (n), the
    classifier n + 1.

    Raises:
      InputError: the returned function, for a path that this model does not have;
        there is no default depth.

    >>> make_layer_index(ViTConfig())("vit/encoder/layer/3/output/dense/bias")
    4
    """
    num_layers = config.num_hidden_layers
    depths = {
        r"vit/embeddings/.+": 0,
        r"vit/layernorm/.+": num_layers,
        r"classifier/.+": num_layers + 1,
    }

    def layer_index(path: str) -> int:
        block = re.fullmatch(r"vit/encoder/layer/(\d+)/.+", path)
        if block and int(block[1]) < num_layers:
            return int(block[1]) + 1
        for pattern, depth in depths.items():
            if re.fullmatch(pattern, path):
                return depth
        raise InputError(
            f"parameter {path!r} belongs to no layer of a ViT of {num_layers} blocks; "
            "known are vit/embeddings/…, vit/encoder/layer/<block>/…, vit/layernorm/… "
            "and classifier/…"
        )

    return layer_index


def example_inputs(config: ViTConfig) -> jax.ShapeDtypeStruct:
    """Return the shape and dtype of one image."""
    shape = (1, *config.image_size, config.num_channels)
    example: jax.ShapeDtypeStruct = jax.eval_shape(lambda: jnp.zeros(shape))
    return example


FAMILY = Family(
    model_type="vit",
    hf_architecture="ViTForImageClassification",
    base_prefix="vit",
    input_field="pixel_values",
    config_from_dict=config_from_dict,
    make_module=ViT,
    example_inputs=example_inputs,
    layer_index=make_layer_index,
    num_layers=lambda config: config.num_hidden_layers,
    final_norm=r"vit/layernorm/.*",
    head_rules=(r"classifier/.*",),
)
