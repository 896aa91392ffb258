# SPDX-License-Identifier: Apache-2.0
"""The fields of a T5's config.json, and what three versions of it mean by them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jft.models.fields import read_fields, resolve_names
from jft.models.layers import Init, normal
from jft.models.nonlinearities import ACTIVATIONS
from jft.types import InputError


@dataclass(frozen=True, kw_only=True)
class T5Config:
    """The fields of config.json that change the arithmetic, with its defaults."""

    vocab_size: int = 32128
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = 6
    num_decoder_layers: int | None = None  # as many as the encoder has
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    initializer_factor: float = 1.0
    feed_forward_proj: str = "relu"
    dense_act_fn: str | None = None  # this and the next: told by feed_forward_proj
    is_gated_act: bool | None = None
    tie_word_embeddings: bool = True
    scale_decoder_outputs: bool | None = None  # exactly where the words are tied
    classifier_dropout: float = 0.0
    eos_token_id: int | None = 1
    decoder_start_token_id: int | None = None
    num_labels: int = 2

    @property
    def decoder_layers(self) -> int:
        """Blocks of the decoder."""
        return self.num_decoder_layers or self.num_layers

    @property
    def gated(self) -> bool:
        """Whether the MLP multiplies two wide layers."""
        gated = self.is_gated_act
        return self.feed_forward_proj.startswith("gated-") if gated is None else gated

    @property
    def activation(self) -> str:
        """The MLP's; "gated-gelu" means the tanh formula."""
        if self.dense_act_fn is not None:
            return self.dense_act_fn
        if self.feed_forward_proj == "gated-gelu":
            return "gelu_new"
        return self.feed_forward_proj.removeprefix("gated-")

    @property
    def scaled(self) -> bool:
        """Whether the last states are scaled before they meet the words."""
        scaled = self.scale_decoder_outputs
        return self.tie_word_embeddings if scaled is None else scaled

    def init(self, *fan: int) -> Init:
        """How a matrix is drawn whose inputs are scaled by these widths."""
        return normal(self.initializer_factor * float(np.prod(fan)) ** -0.5)


# fields that would make another model of it -> the values that do not
UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "is_decoder": (False,),
    "tie_encoder_decoder": (False,),
}

# transformers' general names for fields -> T5's, which they overrule
OTHER_NAMES = {
    "hidden_size": "d_model",
    "num_attention_heads": "num_heads",
    "num_hidden_layers": "num_layers",
    "head_dim": "d_kv",
}


def config_from_dict(config: Mapping[str, Any]) -> T5Config:
    """Read config.json.

    Raises:
      InputError: names the field whose value this model cannot honour.
    """
    given = resolve_names(config, OTHER_NAMES)
    result = read_fields(T5Config, given, only=UNSUPPORTED)
    if result.activation not in ACTIVATIONS:
        name = "feed_forward_proj" if result.dense_act_fn is None else "dense_act_fn"
        raise InputError(
            f"config.json: {name} is {getattr(result, name)!r}; it must be one of "
            f'{sorted(ACTIVATIONS)}, feed_forward_proj also "gated-" and one of them.'
        )
    if result.num_decoder_layers == 0:
        raise InputError("config.json: num_decoder_layers is 0; it must be 1 or more.")
    buckets = result.relative_attention_num_buckets
    farthest = result.relative_attention_max_distance
    if buckets < 4 or farthest <= buckets // 2:
        raise InputError(
            f"config.json: relative_attention_num_buckets is {buckets} and "
            f"relative_attention_max_distance {farthest}; there must be 4 buckets or "
            "more, and the distance above half of them."
        )
    return result


def settle_config(config: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """Say in config.json whether the output layer has weights of its own.

    transformers 5 writes ``tie_word_embeddings: true`` for all of them, and
    ``scale_decoder_outputs: false`` for v1.1; it unties where the checkpoint has both
    weights, which only v1.1's have.
    """
    scaled = config_from_dict(config).scaled
    return {
        **config,
        "scale_decoder_outputs": scaled,
        "tie_word_embeddings": scaled or "lm_head.weight" not in keys,
    }
