# SPDX-License-Identifier: Apache-2.0
"""A tokenizer of a few words, made without a network."""

from typing import Any

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["a", "good", "bad", "great", "awful", "film", "plot", "cast", "##s", "not"]


def make_tokenizer(**changes: Any) -> Any:
    """A lower-casing WordPiece tokenizer as BERT's, with 15 tokens."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    vocab = {token: i for i, token in enumerate([*SPECIAL, *WORDS])}
    backend = Tokenizer(WordPiece(vocab, unk_token="[UNK]"))
    backend.normalizer = BertNormalizer(lowercase=True)
    backend.pre_tokenizer = BertPreTokenizer()
    backend.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocab[token]) for token in ("[CLS]", "[SEP]")],
    )
    names = {f"{t[1:-1].lower()}_token": t for t in SPECIAL}
    settings = {
        "model_max_length": 32,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        **names,
        **changes,
    }
    return PreTrainedTokenizerFast(tokenizer_object=backend, **settings)
