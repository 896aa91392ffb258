# SPDX-License-Identifier: Apache-2.0
"""Vision transformer with a classifier, as ``transformers.ViTForImageClassification``.

The modules nest as the checkpoint's keys do. The forward runs in stages, so that a
frozen prefix can be computed once: stage 0 embeds, stage i+1 is block i, the final
norm closes the last block's stage n, stage n+1 classifies the first token. Stage k
uses the parameters of layer k and no other.

Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", arXiv 2010.11929.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jft.models.attention import attend, merge_heads, split_heads
from jft.models.depth import Place
from jft.models.dropout import dropout
from jft.models.family import Family, Shapes
from jft.models.layers import Blocks, LayerNorm, PatchConv, activate, dense, normal
from jft.models.model import StagedModel
from jft.models.stages import Stages
from jft.models.vit_config import VARIANTS, ViTConfig, config_from_dict
from jft.types import Batch, InputError

AnyArray = jax.Array | np.ndarray


class PatchEmbeddings(nn.Module):
    """The projection, under the checkpoint's name."""

    config: ViTConfig

    @nn.compact
    def __call__(self, images: AnyArray) -> jax.Array:
        """Map ``[B, height, width, channels]`` to ``[B, L - 1, D]``."""
        cfg = self.config
        init, width = normal(cfg.initializer_range), cfg.hidden_size
        return PatchConv(width, cfg.patch_size, init, name="projection")(
            jnp.asarray(images)
        )


class Embeddings(nn.Module):
    """Patches, the class token before them, and positions."""

    config: ViTConfig

    @nn.compact
    def __call__(self, images: AnyArray, *, deterministic: bool) -> jax.Array:
        """Map ``[B, height, width, channels]`` to ``[B, L, D]``."""
        cfg = self.config
        expected = (*cfg.image_size, cfg.num_channels)
        if images.shape[1:] != expected:
            raise InputError(
                f"images have shape {tuple(images.shape)}; this model takes "
                f"[B, height, width, channels] = [B, {', '.join(map(str, expected))}]. "
                "Resize them with the checkpoint's processor."
            )
        patches = PatchEmbeddings(cfg, name="patch_embeddings")(images)
        batch, num_patches, width = patches.shape
        init = normal(cfg.initializer_range)
        cls_token = self.param("cls_token", init, (1, 1, width))
        positions = self.param("position_embeddings", init, (1, num_patches + 1, width))
        first = jnp.broadcast_to(cls_token, (batch, 1, width))
        tokens = jnp.concatenate([first, patches], axis=1) + positions
        return dropout(tokens, cfg.hidden_dropout_prob, deterministic=deterministic)


class SelfAttention(nn.Module):
    """Queries, keys and values of the tokens, and the mix."""

    config: ViTConfig
    num_read: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
        """Map ``[B, L, D]`` to the first ``num_read`` tokens, ``[B, num_read, D]``."""
        cfg = self.config
        num_heads, width = cfg.num_attention_heads, cfg.hidden_size
        init = normal(cfg.initializer_range)
        query, key, value = (
            split_heads(
                dense(of, width, name=name, init=init, bias=cfg.qkv_bias), num_heads
            )
            for of, name in ((x[:, : self.num_read], "query"), (x, "key"), (x, "value"))
        )
        mixed = attend(
            query,
            key,
            value,
            mask=None,
            scale=(width // num_heads) ** -0.5,
            dropout_rate=cfg.attention_probs_dropout_prob,
            deterministic=deterministic,
        )
        return merge_heads(mixed)


class Output(nn.Module):
    """The projection back to the width of the residual stream, then dropout."""

    config: ViTConfig

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
        """Map ``[B, L, F] -> [B, L, D]``."""
        cfg = self.config
        init = normal(cfg.initializer_range)
        x = dense(x, cfg.hidden_size, name="dense", init=init)
        return dropout(x, cfg.hidden_dropout_prob, deterministic=deterministic)


class Attention(nn.Module):
    """Self-attention and its output."""

    config: ViTConfig
    num_read: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
        """Map ``[B, L, D]`` to the first ``num_read`` tokens, ``[B, num_read, D]``."""
        attention = SelfAttention(self.config, self.num_read, name="attention")
        mixed = attention(x, deterministic=deterministic)
        output = Output(self.config, name="output")
        return output(mixed, deterministic=deterministic)


class Intermediate(nn.Module):
    """The wide layer of the MLP."""

    config: ViTConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, F]``."""
        cfg = self.config
        init = normal(cfg.initializer_range)
        x = dense(x, cfg.intermediate_size, name="dense", init=init)
        return activate(x, cfg.hidden_act)


class Block(nn.Module):
    """Attention, then the MLP, each normed before and added after."""

    config: ViTConfig
    num_read: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
        """Map ``[B, L, D]`` to the first ``num_read`` tokens, ``[B, num_read, D]``."""
        cfg = self.config
        normed = LayerNorm(cfg.layer_norm_eps, name="layernorm_before")(x)
        attention = Attention(cfg, self.num_read, name="attention")
        x = x[:, : self.num_read] + attention(normed, deterministic=deterministic)
        normed = LayerNorm(cfg.layer_norm_eps, name="layernorm_after")(x)
        wide = Intermediate(cfg, name="intermediate")(normed)
        y: jax.Array = Output(cfg, name="output")(wide, deterministic=deterministic)
        return x + y


class Encoder(nn.Module):
    """The blocks, under the checkpoint's names."""

    config: ViTConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, stages: Stages, *, deterministic: bool
    ) -> jax.Array:
        """Run the blocks of the stages."""
        layers = Blocks(
            lambda i: Block(self.config, stages.read_of(i), name=str(i)), name="layer"
        )
        return layers(x, stages.blocks, deterministic=deterministic)


class Backbone(nn.Module):
    """Everything but the classifier."""

    config: ViTConfig

    @nn.compact
    def __call__(
        self, batch: Batch, x: AnyArray | None, stages: Stages, *, deterministic: bool
    ) -> AnyArray:
        """Run the stages below the head: ``[B, L, D]``."""
        cfg = self.config
        if stages.embed:
            embeddings = Embeddings(cfg, name="embeddings")
            x = embeddings(batch["pixel_values"], deterministic=deterministic)
        encoder = Encoder(cfg, name="encoder")
        y: jax.Array = encoder(x, stages, deterministic=deterministic)
        if stages.closes(cfg.num_hidden_layers - 1):
            y = LayerNorm(cfg.layer_norm_eps, name="layernorm")(y)
        return y


class ViT(StagedModel):
    """The classifier; its parameter paths are the keys of the checkpoint.

    A batch has ``pixel_values [B, height, width, channels]`` for ``start=0``, in any
    float dtype (the parameters' dtype rules).
    """

    config: ViTConfig
    task: str = "image_classification"

    def num_read(self) -> int:
        """The classifier reads the first token."""
        return 1

    def make_backbone(self) -> Backbone:
        """Everything but the head, under the checkpoint's name."""
        return Backbone(self.config, name="vit")

    def answer(
        self, x: AnyArray, batch: Batch, backbone: Backbone, *, deterministic: bool
    ) -> jax.Array:
        """Classify the first token: ``[B, 1, D] -> [B, C]``."""
        cfg = self.config
        init = normal(cfg.initializer_range)
        return dense(jnp.asarray(x)[:, 0], cfg.num_labels, name="classifier", init=init)


def example_batch(config: ViTConfig, task: str) -> Shapes:
    """One image."""
    shape = (1, *config.image_size, config.num_channels)
    return {"pixel_values": jax.ShapeDtypeStruct(shape, jnp.float32)}


FAMILY = Family(
    model_type="vit",
    heads={"image_classification": "ViTForImageClassification"},
    base_prefix="vit",
    config_from_dict=config_from_dict,
    make_module=ViT,
    example_batch=example_batch,
    depths=(
        (r"vit/embeddings/.+", Place.EMBEDDINGS),
        (r"vit/encoder/layer/(\d+)/.+", Place.BLOCK),
    ),
    final_norm=r"vit/layernorm/.*",
    head_rules={"image_classification": (r"classifier/.*",)},
    column_parallel=r"query|key|value|intermediate/dense",
    row_parallel=r"output/dense",
    torch_names=(
        (r"encoder\.layer\.", "layers."),
        (r"attention\.attention\.query\b", "attention.q_proj"),
        (r"attention\.attention\.key\b", "attention.k_proj"),
        (r"attention\.attention\.value\b", "attention.v_proj"),
        (r"attention\.output\.dense\b", "attention.o_proj"),
        (r"intermediate\.dense\b", "mlp.fc1"),
        (r"output\.dense\b", "mlp.fc2"),
    ),
    variants=VARIANTS,
)
