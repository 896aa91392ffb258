# SPDX-License-Identifier: Apache-2.0
"""Marian, such as the opus-mt translators: BART with sinusoids for positions.

Junczys-Dowmunt et al. 2018, "Marian: Fast Neural Machine Translation in C++", arXiv
1804.00344.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from jft.models.bart import BUFFERS, make_family
from jft.models.bart_config import BartConfig, read_config
from jft.models.encoder_decoder import two_texts_example
from jft.types import Batch, InputError


@dataclass(frozen=True, kw_only=True)
class MarianConfig(BartConfig):
    """The fields of config.json that change the arithmetic, with its defaults."""

    vocab_size: int = 58101
    decoder_vocab_size: int | None = None  # as many as the encoder's
    pad_token_id: int | None = 58100
    eos_token_id: int | None = 0
    decoder_start_token_id: int | None = 58100
    share_encoder_decoder_embeddings: bool = True

    norm_embeddings: ClassVar[bool] = False
    sinusoidal: ClassVar[bool] = True

    @property
    def shares_words(self) -> bool:
        """Whether the checkpoint has one table of words for both sides."""
        return self.share_encoder_decoder_embeddings

    @property
    def target_vocab_size(self) -> int:
        """Words of the decoder."""
        return self.decoder_vocab_size or self.vocab_size

    def with_decoder_input(self, batch: Batch) -> Batch:
        """The batch as it is: a translation cannot be made of its source."""
        return batch


# what older versions could choose, as Marian has it
MARIAN_ONLY: Mapping[str, tuple[Any, ...]] = {
    "normalize_before": (False,),
    "normalize_embedding": (False,),
    "add_final_layer_norm": (False,),
    "static_position_embeddings": (True,),
}


def config_from_dict(config: Mapping[str, Any]) -> MarianConfig:
    """Read config.json.

    Raises:
      InputError: names the field whose value this model cannot honour.
    """
    result: MarianConfig = read_config(MarianConfig, config, MARIAN_ONLY)
    if result.shares_words and result.target_vocab_size != result.vocab_size:
        raise InputError(
            f"config.json: decoder_vocab_size is {result.decoder_vocab_size}; with "
            "share_encoder_decoder_embeddings it must be vocab_size, "
            f"{result.vocab_size}."
        )
    return result


FAMILY = make_family(
    "marian",
    "Marian",
    heads={"base": "MarianModel", "seq2seq_lm": "MarianMTModel"},
    config_from_dict=config_from_dict,
    example_batch=two_texts_example,
    special_ids={"decoder_start_token_id": "pad", "forced_eos_token_id": "eos"},
    optional_rules={"base": (r"model/(?:encoder|decoder)/embed_positions/.*",)},
    # sinusoids
    buffers=(*BUFFERS, r"(?:model\.)?(?:encoder|decoder)\.embed_positions\.weight"),
    variants={
        "opus-mt-en-de": MarianConfig(
            max_position_embeddings=512,
            encoder_layers=6,
            encoder_ffn_dim=2048,
            encoder_attention_heads=8,
            decoder_layers=6,
            decoder_ffn_dim=2048,
            decoder_attention_heads=8,
            activation_function="swish",
            d_model=512,
            scale_embedding=True,
        )
    },
)
