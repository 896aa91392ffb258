# SPDX-License-Identifier: Apache-2.0
"""How does it leave? As a Hugging Face folder that transformers reads, with a card."""

from jft.export.adapter import write_adapter
from jft.export.card import USES, model_card
from jft.export.hf import parse_size, save_pretrained
from jft.export.sentence_transformers import write_sentence_transformers

__all__ = [
    "USES",
    "model_card",
    "parse_size",
    "save_pretrained",
    "write_adapter",
    "write_sentence_transformers",
]
