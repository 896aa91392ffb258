# SPDX-License-Identifier: Apache-2.0
"""ModernBERT as in Hugging Face checkpoints: a pre-norm encoder with rotary positions.

The module tree is that of transformers' ``ModernBertForMaskedLM`` and its siblings.
Some blocks look at all tokens, the others at those within half of ``local_attention``
on each side; each kind turns its queries and keys at its own speed. ``head`` comes
before every classifier and is kept when the classifier is replaced.

Warner et al. 2024, "Smarter, Better, Faster, Longer: A Modern Bidirectional Encoder",
arXiv 2412.13663.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jft.models import heads
from jft.models.attention import (
    attend,
    merge_heads,
    padding_mask,
    split_heads,
    token_positions,
)
from jft.models.depth import Place
from jft.models.dropout import Dropout, dropout
from jft.models.family import Family
from jft.models.layers import (
    Bias,
    Blocks,
    Embed,
    LayerNorm,
    activate,
    dense,
)
from jft.models.masks import Mask
from jft.models.model import TextModel
from jft.models.modernbert_config import (
    LAYER_TYPES,
    VARIANTS,
    ModernBertConfig,
    config_from_dict,
)
from jft.models.packing import heads_of_tokens
from jft.models.pooling import mean_pool
from jft.models.rotary import rotary_tables, rotate
from jft.models.stages import Stages
from jft.types import Batch


def norm(cfg: ModernBertConfig, name: str) -> LayerNorm:
    """Make a norm of that name."""
    return LayerNorm(cfg.norm_eps, cfg.norm_bias, name=name)


class Embeddings(nn.Module):
    """Words, normed."""

    config: ModernBertConfig

    def setup(self) -> None:
        """Make the table, which is also the tied output layer."""
        cfg = self.config
        self.tok_embeddings = Embed(
            cfg.vocab_size, cfg.hidden_size, cfg.init, cfg.pad_token_id
        )
        self.norm = LayerNorm(cfg.norm_eps, cfg.norm_bias)
        self.drop = Dropout(cfg.embedding_dropout)

    def __call__(self, batch: Batch, *, deterministic: bool) -> jax.Array:
        """Map ids ``[B, L]`` to ``[B, L, D]``."""
        x = self.tok_embeddings(jnp.asarray(batch["input_ids"]))
        return self.drop(self.norm(x), deterministic)


class Attention(nn.Module):
    """Queries, keys and values of the tokens, turned by position, and the mix."""

    config: ModernBertConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, tables: Any, mask: Any, *, deterministic: bool
    ) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``."""
        cfg = self.config
        width, num_heads = cfg.hidden_size, cfg.num_attention_heads
        bias, rate = cfg.attention_bias, cfg.attention_dropout
        qkv = dense(x, 3 * width, name="Wqkv", init=cfg.init, bias=bias)
        parts = jnp.split(qkv, 3, axis=-1)
        query, key, value = (split_heads(part, num_heads) for part in parts)
        mixed = attend(
            rotate(query, tables),
            rotate(key, tables),
            value,
            mask=mask,
            scale=(width // num_heads) ** -0.5,
            dropout_rate=rate,
            deterministic=deterministic,
        )
        x = dense(merge_heads(mixed), width, name="Wo", init=cfg.out_init, bias=bias)
        return dropout(x, rate, deterministic=deterministic)


class MLP(nn.Module):
    """A gated MLP; one product makes both the values and their gates."""

    config: ModernBertConfig

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``."""
        cfg = self.config
        wide, bias = 2 * cfg.intermediate_size, cfg.mlp_bias
        both = dense(x, wide, name="Wi", init=cfg.init, bias=bias)
        values, gates = jnp.split(both, 2, axis=-1)
        x = activate(values, cfg.hidden_activation) * gates
        x = dropout(x, cfg.mlp_dropout, deterministic=deterministic)
        return dense(x, cfg.hidden_size, name="Wo", init=cfg.out_init, bias=bias)


class Block(nn.Module):
    """Attention and the MLP, each of what was normed before; the first is already."""

    config: ModernBertConfig
    number: int

    @nn.compact
    def __call__(
        self, x: jax.Array, looks: Mapping[str, Any], *, deterministic: bool
    ) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``; ``looks``: tables and mask, by layer type."""
        cfg = self.config
        attention, mlp = Attention(cfg, name="attn"), MLP(cfg, name="mlp")
        tables, mask = looks[cfg.layer_types[self.number]]
        normed = norm(cfg, "attn_norm")(x) if self.number else x
        x = x + attention(normed, tables, mask, deterministic=deterministic)
        return x + mlp(norm(cfg, "mlp_norm")(x), deterministic=deterministic)


class Backbone(nn.Module):
    """Everything but the head."""

    config: ModernBertConfig

    def setup(self) -> None:
        """Name the parts as the checkpoint does."""
        cfg = self.config
        self.embeddings = Embeddings(cfg)
        self.layers = Blocks(lambda i: Block(cfg, i, name=str(i)))
        self.final_norm = LayerNorm(cfg.norm_eps, cfg.norm_bias)

    def __call__(
        self, batch: Batch, hidden: Any, stages: Stages, *, deterministic: bool
    ) -> jax.Array:
        """Run the stages below the head: ``[B, L, D]``."""
        cfg = self.config
        if stages.embed:
            hidden = self.embeddings(batch, deterministic=deterministic)
        looks = make_looks(cfg, batch)
        x: jax.Array = self.layers(
            hidden, stages.blocks, looks, deterministic=deterministic
        )
        return self.final_norm(x) if stages.closes(cfg.num_hidden_layers - 1) else x

    def score_words(self, x: jax.Array) -> jax.Array:
        """Score ``[B, L, D]`` against every word: the tied output layer."""
        return self.embeddings.tok_embeddings.attend(x)


def make_looks(cfg: ModernBertConfig, batch: Batch) -> dict[str, Any]:
    """Return what each kind of layer turns by and looks at: ``{type: (tables, mask)}``.

    A local layer's window is ``local_attention // 2`` tokens on each side.
    """
    order = jnp.arange(batch["input_ids"].shape[1])
    everywhere = padding_mask(batch)
    distance = jnp.abs(order[:, None] - order[None])
    near = (distance <= cfg.local_attention // 2)[None, None]
    if everywhere is not None:
        near = jnp.logical_and(near, everywhere.allowed)
    positions = token_positions(batch)
    tables = (rotary_tables(rope, positions) for rope in cfg.ropes)
    masks = (everywhere, Mask(allowed=near))
    return dict(zip(LAYER_TYPES, zip(tables, masks, strict=True), strict=True))


class Head(nn.Module):
    """Dense, activation and norm, before words or classes are scored."""

    config: ModernBertConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``[..., D] -> [..., D]``."""
        cfg, bias = self.config, self.config.classifier_bias
        x = dense(x, cfg.hidden_size, name="dense", init=cfg.out_init, bias=bias)
        x = activate(x, cfg.classifier_activation)
        return norm(cfg, "norm")(x)


def pool(x: jax.Array, batch: Batch, how: str) -> jax.Array:
    """Take the first token, or the mean of the real ones: ``[B, L, D] -> [B, D]``."""
    if how == "cls":
        return x[:, 0]
    return mean_pool(x, batch.get("attention_mask", jnp.ones(x.shape[:2], jnp.int32)))


class ModernBert(TextModel):
    """ModernBERT with the head of a task; parameter paths are the checkpoint's keys."""

    config: ModernBertConfig

    def make_backbone(self) -> Backbone:
        """Everything but the head, under the checkpoint's name."""
        return Backbone(self.config, name="model")

    def answer(
        self, x: jax.Array, batch: Batch, backbone: Backbone, *, deterministic: bool
    ) -> Any:
        """What the head makes of ``[B, L, D]``, see `jft.models.heads`."""
        cfg, task = self.config, self.task
        if task == "base":
            return {"last_hidden_state": x}
        if task == "sequence_classification":
            x = pool(x, batch, cfg.classifier_pooling)
        x = Head(cfg, name="head")(x)
        if task == "masked_lm" and cfg.tie_word_embeddings:
            logits = backbone.score_words(x)
            return Bias(name="decoder")(logits) if cfg.decoder_bias else logits
        if task == "masked_lm":
            init, bias = cfg.out_init, cfg.decoder_bias
            return dense(x, cfg.vocab_size, name="decoder", init=init, bias=bias)
        return heads.classify_tokens(
            x,
            2 if task == "question_answering" else cfg.num_labels,
            rate=cfg.classifier_dropout,
            deterministic=deterministic,
            init=cfg.classifier_init,
        )


FAMILY = Family(
    model_type="modernbert",
    heads={
        "base": "ModernBertModel",
        "masked_lm": "ModernBertForMaskedLM",
        "sequence_classification": "ModernBertForSequenceClassification",
        "token_classification": "ModernBertForTokenClassification",
        "question_answering": "ModernBertForQuestionAnswering",
    },
    base_prefix="model",
    config_from_dict=config_from_dict,
    make_module=ModernBert,
    depths=(
        (r"model/embeddings/.+", Place.EMBEDDINGS),
        (r"model/layers/(\d+)/.+", Place.BLOCK),
    ),
    final_norm=r"model/final_norm/.*",
    head_rules={
        **heads.HEAD_RULES,
        "masked_lm": (r"(?:head|decoder)/.*",),
        "question_answering": (r"classifier/.*",),
    },
    # kept with another classifier; checkpoints of masked language models have it
    optional_rules=dict.fromkeys(
        ("sequence_classification", "token_classification", "question_answering"),
        (r"head/.*",),
    ),
    packed_heads=heads_of_tokens,
    shared_rules=(r"model/embeddings/tok_embeddings/.*",),
    embedding_rules=(r"model/embeddings/tok_embeddings/.*", r"decoder/.*"),
    column_parallel=r"Wqkv|Wi",
    row_parallel=r"Wo",
    tied_outputs=((r"decoder\.weight", r"embeddings\.tok_embeddings\.weight"),),
    special_ids={"cls_token_id": "cls", "sep_token_id": "sep"},
    variants=VARIANTS,
)
