# SPDX-License-Identifier: Apache-2.0
"""What a BERT's config.json says, checked, and the published sizes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from jft.models.fields import check_heads, check_token_id, read_fields
from jft.models.layers import Init, normal


@dataclass(frozen=True, kw_only=True)
class BertConfig:
    """The fields of config.json that change the arithmetic, with its defaults."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float | None = None
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True
    num_labels: int = 2

    @property
    def init(self) -> Init:
        """How matrices are drawn."""
        return normal(self.initializer_range)

    @property
    def head_dropout(self) -> float:
        """The rate before a classifier."""
        rate = self.classifier_dropout
        return self.hidden_dropout_prob if rate is None else rate


T = TypeVar("T", bound=BertConfig)

# fields that would make another model of it -> the values that do not
ENCODER_ONLY: Mapping[str, tuple[Any, ...]] = {
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "position_embedding_type": ("absolute", None),
}


# what checkpoints call it that were converted from TensorFlow -> what it is called now
OLD_KEYS = (
    (r"(.*LayerNorm)\.gamma", r"\1.weight"),
    (r"(.*LayerNorm)\.beta", r"\1.bias"),
)
# what transformers once saved
BUFFERS = (r"(?:.*\.)?embeddings\.(?:position_ids|token_type_ids)",)
WORDS = r"embeddings\.word_embeddings\.weight"


def read_config(cls: type[T], config: Mapping[str, Any]) -> T:
    """Read config.json into BERT's dataclass or one of its kin's.

    Raises:
      InputError: names the field whose value this model cannot honour.
    """
    result = read_fields(cls, config, only=ENCODER_ONLY)
    width, num_heads = result.hidden_size, result.num_attention_heads
    check_heads("hidden_size", width, "num_attention_heads", num_heads)
    check_token_id("pad_token_id", result.pad_token_id, result.vocab_size)
    return result


def _variant(width: int, layers: int, **changes: Any) -> BertConfig:
    return BertConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
        **changes,
    )


VARIANTS: Mapping[str, BertConfig] = {
    "bert-base-uncased": _variant(768, 12),
    "bert-large-uncased": _variant(1024, 24),
    "bert-base-multilingual-cased": _variant(768, 12, vocab_size=119547),
    "all-MiniLM-L6-v2": BertConfig(
        hidden_size=384, num_hidden_layers=6, intermediate_size=1536
    ),
}
