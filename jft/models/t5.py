# SPDX-License-Identifier: Apache-2.0
"""T5 in its three layouts: T5, T5 v1.1 and FLAN-T5.

Stages as in `jft.models.encoder_decoder`. Positions enter as a bias of the attention
scores by distance, from one table a side, which the first block keeps for all blocks;
its depth is 0, as that of the words.

Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified
Text-to-Text Transformer", arXiv 1910.10683. FLAN: Chung et al. 2022, arXiv 2210.11416.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jft.models import heads
from jft.models.attention import causal_mask, first_position, padding_mask
from jft.models.before import num_before
from jft.models.dropout import Dropout, dropout
from jft.models.encoder_decoder import (
    answer,
    numbers_below,
    run_stages,
    two_texts_example,
    with_shifted_input,
)
from jft.models.family import Family, make_layer_index
from jft.models.layers import Blocks, Embed, RMSNorm, activate, dense, normal
from jft.models.masks import Mask
from jft.models.stages import make_stages
from jft.models.t5_attention import Attention
from jft.models.t5_config import T5Config, config_from_dict, settle_config
from jft.types import Batch, LayerIndex


class DenseReluDense(nn.Module):
    """The MLP, under the name it had when its activation was always relu."""

    config: T5Config

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``."""
        cfg = self.config

        def widen(name: str) -> jax.Array:
            init = cfg.init(cfg.d_model)
            return dense(x, cfg.d_ff, name=name, init=init, bias=False)

        wide = activate(widen("wi_0" if cfg.gated else "wi"), cfg.activation)
        if cfg.gated:
            wide = wide * widen("wi_1")
        wide = dropout(wide, cfg.dropout_rate, deterministic=deterministic)
        init = cfg.init(cfg.d_ff)
        return dense(wide, cfg.d_model, name="wo", init=init, bias=False)


class Layer(nn.Module):
    """One part of a block: normed before, dropped out and added."""

    config: T5Config
    part: str  # its name in the checkpoint
    make: Callable[[], nn.Module]

    def setup(self) -> None:
        """Name the parts as the checkpoint does."""
        setattr(self, self.part, self.make())
        self.layer_norm = RMSNorm(self.config.layer_norm_epsilon)
        self.dropout = Dropout(self.config.dropout_rate)

    def __call__(
        self, x: jax.Array, *args: Any, deterministic: bool, **options: Any
    ) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``."""
        part, normed = getattr(self, self.part), self.layer_norm(x)
        y = part(normed, *args, deterministic=deterministic, **options)
        return x + self.dropout(y, deterministic)


class Layers(nn.Module):
    """The parts of a block, under the checkpoint's numbers."""

    config: T5Config
    causal: bool
    has_table: bool

    def setup(self) -> None:
        """Self-attention, in the decoder attention to the encoder, MLP."""
        cfg, causal = self.config, self.causal
        parts: dict[str, Callable[[], nn.Module]] = {
            "SelfAttention": lambda: Attention(cfg, causal, has_table=self.has_table),
            "EncDecAttention": lambda: Attention(cfg, causal, cross=True),
            "DenseReluDense": lambda: DenseReluDense(cfg),
        }
        names = [name for name in parts if causal or name != "EncDecAttention"]
        for i, name in enumerate(names):
            setattr(self, str(i), Layer(cfg, name, parts[name]))

    def position_bias(self, queries: jax.Array, num_keys: int) -> jax.Array:
        """Bias of all blocks' scores, which only the first block has."""
        attention = getattr(self, "0").SelfAttention
        return attention.position_bias(queries, num_keys)

    def __call__(
        self,
        x: jax.Array,
        batch: Batch,
        mask: Mask | None,
        *,
        bias: jax.Array,
        encoder: jax.Array | None = None,
        deterministic: bool,
    ) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``."""
        options = {"deterministic": deterministic}
        *attentions, mlp = [getattr(self, str(i)) for i in range(2 + self.causal)]
        x = attentions[0](x, batch, mask, bias=bias, **options)
        for cross in attentions[1:]:
            x = cross(x, batch, padding_mask(batch), encoder=encoder, **options)
        return mlp(x, **options)


class Block(nn.Module):
    """Holds the parts of a block under the checkpoint's name."""

    config: T5Config
    causal: bool
    has_table: bool

    def setup(self) -> None:
        """Make the parts."""
        self.layer = Layers(self.config, self.causal, self.has_table)

    def position_bias(self, queries: jax.Array, num_keys: int) -> jax.Array:
        """As that of the parts."""
        return self.layer.position_bias(queries, num_keys)

    def __call__(self, x: jax.Array, *args: Any, **options: Any) -> jax.Array:
        """Map ``[B, L, D] -> [B, L, D]``."""
        return self.layer(x, *args, **options)


class Stack(nn.Module):
    """The encoder, or the causal decoder."""

    config: T5Config
    causal: bool

    def setup(self) -> None:
        """Name the parts as the checkpoint does."""
        cfg, causal = self.config, self.causal
        self.block = Blocks(lambda i: Block(cfg, causal, i == 0, name=str(i)))
        self.final_layer_norm = RMSNorm(cfg.layer_norm_epsilon)
        self.first_dropout = Dropout(cfg.dropout_rate)
        self.last_dropout = Dropout(cfg.dropout_rate)

    @property
    def num_layers(self) -> int:
        """Blocks of this side."""
        cfg = self.config
        return cfg.decoder_layers if self.causal else cfg.num_layers

    def embed(
        self, table: Embed, ids: jax.Array, batch: Batch, *, deterministic: bool
    ) -> jax.Array:
        """Map ids ``[B, L]`` to ``[B, L, D]``."""
        return self.first_dropout(table(ids), deterministic)

    def __call__(
        self,
        x: jax.Array,
        batch: Batch,
        blocks: range,
        *,
        deterministic: bool,
        **options: Any,
    ) -> jax.Array:
        """Run the given blocks, and the norm behind the last one."""
        mask = padding_mask(batch)
        queries, num_keys = jnp.arange(x.shape[1]), x.shape[1]
        if self.causal:
            mask = causal_mask(
                batch, ids="decoder_input_ids", padding="decoder_attention_mask"
            )
            before = num_before(batch)
            queries = queries + first_position(batch) + before
            num_keys = mask.allowed.shape[-1]
        x = self.block(
            x,
            blocks,
            batch,
            mask,
            from_first=lambda b: {"bias": b.position_bias(queries, num_keys)},
            deterministic=deterministic,
            **options,
        )
        if self.num_layers - 1 in blocks:
            x = self.last_dropout(self.final_layer_norm(x), deterministic)
        return x


class T5(nn.Module):
    """T5 with the head of a task; its parameter paths are the checkpoint's keys."""

    config: T5Config
    task: str

    @nn.compact
    def __call__(
        self,
        batch: Batch,
        *,
        hidden: Mapping[str, jax.Array] | None = None,
        start: int = 0,
        stop: int | None = None,
        deterministic: bool = True,
    ) -> Any:
        """Run the stages from boundary ``start`` to boundary ``stop``.

        Args:
          batch: ``input_ids [B, L]`` and ``decoder_input_ids [B, M]``; optionally
            ``attention_mask`` and ``decoder_attention_mask`` (1 real, 0 padding). The
            classifiers and question answering let the decoder read ``input_ids`` where
            it has no text of its own, and classify tokens by the encoder alone. While
            decoding see `jft.models.attention`.
          hidden: for ``start`` above 0, what a call with ``stop=start`` returned.
          start: the first stage to run.
          stop: the stage to stop before; None runs the head.
          deterministic: False drops out, with the key ``rngs={"dropout": key}``.

        Returns:
          ``{"encoder": [B, L, D], "decoder": [B, M, D]}`` at boundary ``stop``, or what
          the head answers, see `jft.models.heads`.
        """
        cfg, task = self.config, self.task
        num_layers = cfg.num_layers, cfg.decoder_layers
        stages = make_stages(start, stop, num_layers=sum(num_layers))
        shared = Embed(
            cfg.vocab_size, cfg.d_model, normal(cfg.initializer_factor), name="shared"
        )
        encoder = Stack(cfg, False, name="encoder")
        decoder = None
        if task != "token_classification":
            decoder = Stack(cfg, True, name="decoder")
        if task in ("sequence_classification", "question_answering"):
            batch = with_shifted_input(batch, cfg.decoder_start_token_id)
        hidden = run_stages(
            encoder,
            decoder,
            batch,
            hidden,
            stages,
            num_layers=num_layers,
            tables=(shared, shared),
            deterministic=deterministic,
        )
        if not stages.head:
            return hidden
        if task == "token_classification":
            return heads.classify_tokens(
                hidden["encoder"],
                cfg.num_labels,
                rate=cfg.classifier_dropout,
                deterministic=deterministic,
                init=cfg.init(),
            )
        if task != "seq2seq_lm":
            return answer(
                task,
                hidden,
                batch,
                num_labels=cfg.num_labels,
                eos_id=cfg.eos_token_id,
                rate=cfg.classifier_dropout,
                init=cfg.init(cfg.d_model),
                deterministic=deterministic,
            )
        x = hidden["decoder"]
        if cfg.scaled:
            x = x * cfg.d_model**-0.5
        if cfg.tie_word_embeddings:
            return shared.attend(x)
        return dense(x, cfg.vocab_size, name="lm_head", init=cfg.init(), bias=False)


HEAD_RULES = {
    "base": (),
    "seq2seq_lm": (r"lm_head/.*",),
    "sequence_classification": (r"classification_head/.*",),
    "token_classification": (r"classifier/.*",),
    "question_answering": (r"qa_outputs/.*",),
}


def layer_index(config: T5Config) -> LayerIndex:
    """Map each parameter path to its depth.

    >>> layer_index(T5Config())("decoder/block/0/layer/1/EncDecAttention/q/kernel")
    7
    """
    encoder, decoder = config.num_layers, config.decoder_layers
    return make_layer_index(
        "T5",
        num_layers=encoder + decoder,
        rules=[
            (r"shared/.+", 0),
            (r".+/relative_attention_bias/.+", 0),
            (rf"encoder/block/{numbers_below(encoder)}/.+", 1),
            (r"encoder/final_layer_norm/.+", encoder),
            (rf"decoder/block/{numbers_below(decoder)}/.+", encoder + 1),
            (r"decoder/final_layer_norm/.+", encoder + decoder),
            (
                r"(?:lm_head|classification_head|classifier|qa_outputs)/.+",
                encoder + decoder + 1,
            ),
        ],
    )


def _v1_1(d_model: int, **changes: Any) -> T5Config:
    return T5Config(
        d_model=d_model,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        **changes,
    )


FAMILY = Family(
    model_type="t5",
    heads={
        "base": "T5Model",
        "seq2seq_lm": "T5ForConditionalGeneration",
        "sequence_classification": "T5ForSequenceClassification",
        "token_classification": "T5ForTokenClassification",
        "question_answering": "T5ForQuestionAnswering",
    },
    base_prefix="",
    prefix_exceptions={
        "sequence_classification": "transformer",
        "token_classification": "transformer",
    },
    config_from_dict=config_from_dict,
    settle_config=settle_config,
    make_module=T5,
    example_batch=two_texts_example,
    layer_index=layer_index,
    num_layers=lambda config: config.num_layers + config.decoder_layers,
    num_encoder_layers=lambda config: config.num_layers,
    final_norm=r"decoder/final_layer_norm/.*",
    head_rules=HEAD_RULES.__getitem__,
    shared_rules=(r"shared/.*", r".*/relative_attention_bias/.*"),
    embedding_rules=(r"shared/.*", r"lm_head/.*"),
    column_parallel=r"[qkv]|wi(?:_\d)?",
    row_parallel=r"o|wo",
    special_ids={"decoder_start_token_id": "pad"},
    variants={
        "t5-small": T5Config(),
        "t5-base": T5Config(d_model=768, d_ff=3072, num_layers=12, num_heads=12),
        "flan-t5-base": _v1_1(768, num_layers=12, num_heads=12),
        "flan-t5-large": _v1_1(1024, d_ff=2816, num_layers=24, num_heads=16),
    },
)
