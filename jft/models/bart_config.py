# SPDX-License-Identifier: Apache-2.0
"""The fields of config.json that BART, mBART and Marian have in common."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from jft.models.encoder_decoder import with_shifted_input
from jft.models.fields import check_heads, check_token_id, read_fields, resolve_names
from jft.models.layers import Init, normal
from jft.types import Batch


@dataclass(frozen=True, kw_only=True)
class BartConfig:
    """The fields of config.json that change the arithmetic, with its defaults."""

    vocab_size: int = 50265
    max_position_embeddings: int = 1024
    encoder_layers: int = 12
    encoder_ffn_dim: int = 4096
    encoder_attention_heads: int = 16
    decoder_layers: int = 12
    decoder_ffn_dim: int = 4096
    decoder_attention_heads: int = 16
    activation_function: str = "gelu"
    d_model: int = 1024
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    classifier_dropout: float = 0.0
    init_std: float = 0.02
    scale_embedding: bool = False
    pad_token_id: int | None = 1
    eos_token_id: int | None = 2
    decoder_start_token_id: int | None = 2
    tie_word_embeddings: bool = True
    num_labels: int = 3

    norm_first: ClassVar[bool] = False  # and once more behind the last block
    norm_embeddings: ClassVar[bool] = True
    sinusoidal: ClassVar[bool] = False

    @property
    def init(self) -> Init:
        """How matrices are drawn."""
        return normal(self.init_std)

    @property
    def shares_words(self) -> bool:
        """Whether the checkpoint has one table of words for both sides."""
        return True

    @property
    def target_vocab_size(self) -> int:
        """Words of the decoder."""
        return self.vocab_size

    @property
    def own_tables(self) -> bool:
        """Whether encoder and decoder have a table of words each."""
        return not (self.tie_word_embeddings and self.shares_words)

    def with_decoder_input(self, batch: Batch) -> Batch:
        """The batch, with what the decoder reads where the batch does not say."""
        return with_shifted_input(batch, self.decoder_start_token_id)


# transformers' general names for fields -> BART's, which they overrule
OTHER_NAMES = {
    "hidden_size": "d_model",
    "num_attention_heads": "encoder_attention_heads",
    "num_hidden_layers": "encoder_layers",
}

# fields that would make another model of all three -> the values that do not
UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "is_decoder": (False,),
    "is_encoder_decoder": (True,),
    "encoder_layerdrop": (0,),
    "decoder_layerdrop": (0,),
}


def read_config(
    cls: type[Any], config: Mapping[str, Any], only: Mapping[str, tuple[Any, ...]]
) -> Any:
    """Read config.json into one of the three dataclasses.

    Raises:
      InputError: names the field whose value this model cannot honour.
    """
    given = resolve_names(config, OTHER_NAMES)
    result = read_fields(cls, given, only={**UNSUPPORTED, **only})
    for side in ("encoder_attention_heads", "decoder_attention_heads"):
        check_heads("d_model", result.d_model, side, getattr(result, side))
    check_token_id("pad_token_id", result.pad_token_id, result.vocab_size)
    return result
