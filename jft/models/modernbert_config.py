# SPDX-License-Identifier: Apache-2.0
"""ModernBERT's config, read from config.json of transformers 5 or 4.

Names and defaults are transformers' own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from flax import linen as nn

from jft.models.fields import check_heads, check_token_id, read_fields
from jft.models.layers import Init
from jft.models.rotary import Rope, read_rope
from jft.types import InputError

LAYER_TYPES = ("full_attention", "sliding_attention")


@dataclass(frozen=True, kw_only=True)
class ModernBertConfig:
    """The fields of config.json that change the arithmetic, with its defaults.

    ``sparse_prediction`` is not among them: it saves torch the logits that its loss
    would ignore.
    """

    vocab_size: int = 50368
    hidden_size: int = 768
    intermediate_size: int = 1152
    num_hidden_layers: int = 22
    num_attention_heads: int = 12
    hidden_activation: str = "gelu"
    max_position_embeddings: int = 8192
    pad_token_id: int | None = 50283
    initializer_range: float = 0.02
    initializer_cutoff_factor: float = 2.0
    norm_eps: float = 1e-5
    norm_bias: bool = False
    attention_bias: bool = False
    attention_dropout: float = 0.0
    layer_types: tuple[str, ...] = ()  # one a block, each of LAYER_TYPES
    global_attn_every_n_layers: int = 3  # where layer_types are not given
    global_rope_theta: float = 160_000.0  # where rope_parameters do not say
    local_rope_theta: float = 10_000.0
    ropes: tuple[Rope, ...] = ()  # from rope_parameters, in the order of LAYER_TYPES
    local_attention: int = 128
    embedding_dropout: float = 0.0
    mlp_bias: bool = False
    mlp_dropout: float = 0.0
    decoder_bias: bool = True
    classifier_pooling: str = "cls"
    classifier_dropout: float = 0.0
    classifier_bias: bool = False
    classifier_activation: str = "gelu"
    tie_word_embeddings: bool = True
    num_labels: int = 2

    def draw(self, std: float) -> Init:
        """How a matrix is drawn: without its tails."""
        cut = self.initializer_cutoff_factor
        return nn.initializers.truncated_normal(std, lower=-cut, upper=cut)

    @property
    def init(self) -> Init:
        """How matrices that read the residual stream are drawn."""
        return self.draw(self.initializer_range)

    @property
    def out_init(self) -> Init:
        """How matrices that write to the residual stream are drawn."""
        return self.draw(self.initializer_range / (2.0 * self.num_hidden_layers) ** 0.5)

    @property
    def classifier_init(self) -> Init:
        """How a classifier is drawn."""
        return self.draw(self.hidden_size**-0.5)


def config_from_dict(config: Mapping[str, Any]) -> ModernBertConfig:
    """Read config.json.

    Raises:
      InputError: names the field whose value this model cannot honour.
    """
    given = {k: v for k, v in config.items() if k != "layer_types" or v is not None}
    result = read_fields(
        ModernBertConfig, given, choices={"classifier_pooling": ("cls", "mean")}
    )
    width, num_heads = result.hidden_size, result.num_attention_heads
    check_heads("hidden_size", width, "num_attention_heads", num_heads)
    check_token_id("pad_token_id", result.pad_token_id, result.vocab_size)
    num_layers, every = result.num_hidden_layers, result.global_attn_every_n_layers
    types = result.layer_types or tuple(
        LAYER_TYPES[i % every > 0] for i in range(num_layers)
    )
    for name, fits, expected in (
        (
            "layer_types",
            len(types) == num_layers and {*types} <= {*LAYER_TYPES},
            f"{num_layers} of {list(LAYER_TYPES)}",
        ),
        (
            "sliding_window",
            config.get("sliding_window", result.local_attention // 2)
            == result.local_attention // 2,
            "half of local_attention",
        ),
        (
            "head_dim",
            config.get("head_dim", width // num_heads) == width // num_heads,
            "hidden_size / num_attention_heads",
        ),
    ):
        if not fits:
            raise InputError(
                f"config.json: {name} is {config[name]!r}; it must be {expected}."
            )
    return replace(result, layer_types=types, ropes=_read_ropes(config, result))


def _read_ropes(config: Mapping[str, Any], read: ModernBertConfig) -> tuple[Rope, ...]:
    """Read ``rope_parameters`` by kind of layer, or the names of transformers 4."""
    nested, scaling = config.get("rope_parameters") or {}, config.get("rope_scaling")
    if not {*nested} <= {*LAYER_TYPES}:
        raise InputError(
            f"config.json: rope_parameters have the keys {sorted(nested)}; ModernBERT "
            f"has them by kind of layer, under {list(LAYER_TYPES)}."
        )
    if scaling and "rope_type" not in scaling:
        raise InputError(
            f"config.json: rope_scaling is {scaling!r}; it must name its rope_type."
        )
    ropes = []
    thetas = (read.global_rope_theta, read.local_rope_theta)
    for kind, theta in zip(LAYER_TYPES, thetas, strict=True):
        options = {"partial_rotary_factor": 1.0, **(nested.get(kind) or {})}
        options |= scaling or {}
        if options["partial_rotary_factor"] != 1.0:
            raise InputError(
                "config.json: rope_parameters have partial_rotary_factor "
                f"{options['partial_rotary_factor']!r}; ModernBERT turns whole heads."
            )
        ropes.append(
            read_rope(
                {"rope_parameters": options},
                head_width=read.hidden_size // read.num_attention_heads,
                max_positions=read.max_position_embeddings,
                theta=theta,
            )
        )
    return tuple(ropes)


VARIANTS = {
    "ModernBERT-base": config_from_dict({}),
    "ModernBERT-large": config_from_dict(
        {
            "hidden_size": 1024,
            "intermediate_size": 2624,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
        }
    ),
}
