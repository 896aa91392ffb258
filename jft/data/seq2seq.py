# SPDX-License-Identifier: Apache-2.0
"""A text and the text to make of it, for models with an encoder and a decoder."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from jft.data.padding import IGNORED, Pad
from jft.data.sources import Example
from jft.data.tokens import check_max_length, fingerprint, pad_token
from jft.types import InputError

Row = dict[str, np.ndarray]


class Seq2SeqFields:
    """Pairs of texts to the fields of both sides; see `make_seq2seq_fields`."""

    # The decoder's text is causal and starts at position 0: with padding behind it no
    # real token sees padding, so models need no decoder_attention_mask.
    padding_side = "right"
    host_fields = ()

    def __init__(
        self,
        tokenizer: Any,
        *,
        decoder_start_token_id: int | None,
        max_length: int,
        max_target_length: int,
        prefix: str,
    ) -> None:
        self.tokenizer = tokenizer
        self.decoder_start_token_id = decoder_start_token_id
        self.max_length = max_length
        self.max_target_length = max_target_length
        self.prefix = prefix
        # most tokenizers end a text themselves
        self._ends = tokenizer.eos_token_id in tokenizer(text_target="")["input_ids"]
        languages = [
            getattr(tokenizer, name, None) for name in ("src_lang", "tgt_lang")
        ]
        self.settings = {
            "fields": "seq2seq",
            "tokenizer": fingerprint(tokenizer),
            "languages": languages,
            "decoder_start_token_id": decoder_start_token_id,
            "max_length": max_length,
            "max_target_length": max_target_length,
            "prefix": prefix,
        }
        pad = pad_token(tokenizer)
        self.padding = {
            "input_ids": Pad(pad),
            "attention_mask": Pad(0),
            "decoder_input_ids": Pad(pad, "target"),
            "targets": Pad(IGNORED, "target"),
        }

    def __call__(self, examples: Sequence[Example]) -> list[list[Row]]:
        """Prepare many examples at once, a row each."""
        inputs = self.tokenizer(
            [self.prefix + example["text"] for example in examples],
            truncation=True,
            max_length=self.max_length,
        )
        names = ("input_ids", "attention_mask")
        rows = [
            {name: np.asarray(inputs[name][i], np.int32) for name in names}
            for i in range(len(examples))
        ]
        if "target_text" in examples[0]:
            texts = [example["target_text"] for example in examples]
            for row, targets in zip(rows, self._targets(texts), strict=True):
                row |= {
                    "decoder_input_ids": self._shifted(targets),
                    "targets": targets,
                }
        return [[row] for row in rows]

    def _targets(self, texts: list[str]) -> list[np.ndarray]:
        room = self.max_target_length - (not self._ends)
        ids = self.tokenizer(text_target=texts, truncation=True, max_length=room)
        end = [] if self._ends else [self.tokenizer.eos_token_id]
        return [np.asarray([*tokens, *end], np.int32) for tokens in ids["input_ids"]]

    def _shifted(self, targets: np.ndarray) -> np.ndarray:
        first = self.decoder_start_token_id
        shifted = np.roll(targets, 1)
        return shifted if first is None else np.append(np.int32(first), shifted[1:])


def make_seq2seq_fields(
    tokenizer: Any,
    *,
    decoder_start_token_id: int | None,
    max_length: int,
    max_target_length: int,
    prefix: str = "",
    src_lang: str | None = None,
    tgt_lang: str | None = None,
) -> Seq2SeqFields:
    """Make the fields of pairs of texts for a sequence-to-sequence model.

    Both texts get the special tokens of their side (Marian has a model of words for
    each, mBART writes the language) and are cut to their length. ``targets`` ends with
    the end of text, behind which mBART writes the language; ``decoder_input_ids`` is
    the same, moved by one, behind the start token: of ``eine Katze end`` it is
    ``start eine Katze``.

    Args:
      tokenizer: of transformers, as ``AutoTokenizer`` loads it; copied.
      decoder_start_token_id: of config.json; None starts a text with its own last
        token, as mBART's models do.
      max_length: of the encoder's text, in tokens, special tokens included.
      max_target_length: of the decoder's, likewise.
      prefix: put before each ``text``: "translate English to German: ".
      src_lang: code of the texts' language, for a tokenizer that has such codes; None
        keeps the tokenizer's own.
      tgt_lang: of the target texts, likewise.

    Returns:
      A picklable ``examples -> rows of each``, here one: ``input_ids`` and
      ``attention_mask``, int32 [L], and ``decoder_input_ids`` and ``targets``, int32
      [M], the latter two where the examples have ``target_text``.

    Raises:
      InputError: for a language that the tokenizer does not know, a length without
        room for text, or a tokenizer without an end of text.
    """
    tokenizer = copy.deepcopy(tokenizer)
    _set_languages(tokenizer, src_lang=src_lang, tgt_lang=tgt_lang)
    if tokenizer.eos_token_id is None:
        raise InputError(
            "the tokenizer has no end-of-text token, so the model could not learn "
            "where texts end; give it one: tokenizer.eos_token = …."
        )
    special = {
        "max_length": len(tokenizer("")["input_ids"]),
        "max_target_length": len(tokenizer(text_target="")["input_ids"]) or 1,
    }
    lengths = {"max_length": max_length, "max_target_length": max_target_length}
    for name, length in lengths.items():
        check_max_length(tokenizer, length, num_special=special[name], name=name)
    return Seq2SeqFields(
        tokenizer,
        decoder_start_token_id=decoder_start_token_id,
        prefix=prefix,
        **lengths,
    )


def _set_languages(
    tokenizer: Any, *, src_lang: str | None, tgt_lang: str | None
) -> None:
    given = {"src_lang": src_lang, "tgt_lang": tgt_lang}
    given = {name: code for name, code in given.items() if code is not None}
    if not hasattr(tokenizer, "src_lang"):
        if given:
            raise InputError(
                f"{given} was given, but a {type(tokenizer).__name__} writes no "
                "language into its texts. Leave it out; where the model wants the "
                "task in words, say it with prefix."
            )
        return
    for name, code in given.items():
        if tokenizer.convert_tokens_to_ids(code) == tokenizer.unk_token_id:
            codes = {*tokenizer.all_special_tokens}
            codes -= {str(token) for token in tokenizer.special_tokens_map.values()}
            raise InputError(
                f"{name} is {code!r}, which the tokenizer does not know; it knows "
                f"{sorted(codes)}."
            )
        setattr(tokenizer, name, code)
    if tokenizer.tgt_lang is None:  # it would write the source's without a word
        raise InputError(
            f"a {type(tokenizer).__name__} writes the language of the target texts "
            "before or behind them; give it as tgt_lang."
        )
