# SPDX-License-Identifier: Apache-2.0
"""A text and the text to make of it, for models with an encoder and a decoder."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from jft.data.fields.padding import IGNORED, Pad
from jft.data.fields.tokens import Row, TokenizerFields, check_max_length, pad_token
from jft.data.sources.source import Example
from jft.types import InputError


class Seq2SeqFields(TokenizerFields):
    """A text, and the text to make of it -> one row; made by `make_seq2seq_fields`."""

    host_fields = ("truncated",)

    def __init__(
        self,
        tokenizer: Any,
        *,
        decoder_start_token_id: int | None,
        max_length: int,
        max_target_length: int,
        prefix: str,
    ) -> None:
        languages = [getattr(tokenizer, n, None) for n in ("src_lang", "tgt_lang")]
        super().__init__(
            tokenizer,
            languages=languages,
            decoder_start_token_id=decoder_start_token_id,
            max_length=max_length,
            max_target_length=max_target_length,
            prefix=prefix,
        )
        self.decoder_start_token_id = decoder_start_token_id
        self.max_length = max_length
        self.max_target_length = max_target_length
        self.prefix = prefix
        pad = pad_token(tokenizer)
        self.padding = {
            "input_ids": Pad(pad),
            "attention_mask": Pad(0),
            "decoder_input_ids": Pad(pad, "target"),
            "targets": Pad(IGNORED, "target"),
        }
        # The decoder is causal and counts positions from its first token: with padding
        # behind them no token sees any, and no decoder_attention_mask is needed.
        self.padding_side = "right"
        ends = tokenizer.eos_token_id in tokenizer(text_target="")["input_ids"]
        self._end = [] if ends else [tokenizer.eos_token_id]  # most do it themselves

    def __call__(self, examples: Sequence[Example]) -> list[list[Row]]:
        """Prepare examples, all in one call of the tokenizer for each side."""
        if not examples:
            return []
        texts = [self.prefix + example["text"] for example in examples]
        inputs, cut = self._cut(texts, self.max_length)
        rows = [
            {"input_ids": ids, "attention_mask": np.ones_like(ids)} for ids in inputs
        ]
        if "target_text" in examples[0]:
            texts = [example["target_text"] for example in examples]
            room = self.max_target_length - len(self._end)
            goals, cut_goals = self._cut(texts, room, target=True)
            cut |= cut_goals
            for row, ids in zip(rows, goals, strict=True):
                targets = np.append(ids, np.asarray(self._end, np.int32))
                row["decoder_input_ids"] = self._shifted(targets)
                row["targets"] = targets
        flags = cut.astype(np.int32)
        return [
            [{**row, "truncated": flag}] for row, flag in zip(rows, flags, strict=True)
        ]

    def _cut(
        self, texts: Sequence[str], max_length: int, *, target: bool = False
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """The tokens of each text of a side, and which texts were cut [N]."""
        ids = self._tokens(texts, target)
        long = [i for i, tokens in enumerate(ids) if len(tokens) > max_length]
        if long:
            options = {"truncation": True, "max_length": max_length}
            short = self._tokens([texts[i] for i in long], target, **options)
            for i, tokens in zip(long, short, strict=True):
                ids[i] = tokens
        cut = np.isin(np.arange(len(ids)), long)
        return [np.asarray(tokens, np.int32) for tokens in ids], cut

    def _tokens(
        self, texts: Sequence[str], target: bool, **options: Any
    ) -> list[list[int]]:
        side = {"text_target": texts} if target else {}
        encoded = self.encode(None if target else texts, **side, **options)
        return list(encoded["input_ids"])

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
      A picklable ``examples -> rows``, one row an example in a list of its own:
      ``input_ids`` and ``attention_mask``, each int32 [l]; ``decoder_input_ids`` and
      ``targets``, each int32 [m], where the examples have ``target_text``;
      ``truncated``, 1 where either text was cut, else 0. Rows are padded on the right,
      whichever side the tokenizer prefers.

    Raises:
      InputError: for a language that the tokenizer does not know, a tokenizer without
        an end of text, or a length as `make_text_fields` refuses it.
    """
    tokenizer = copy.deepcopy(tokenizer)
    _set_languages(tokenizer, src_lang=src_lang, tgt_lang=tgt_lang)
    if tokenizer.eos_token_id is None:
        raise InputError(
            "the tokenizer has no end-of-text token, so the model could not learn "
            "where texts end; give it one: tokenizer.eos_token = …."
        )
    check_max_length(tokenizer, max_length)
    check_max_length(tokenizer, max_target_length, name="max_target_length")
    return Seq2SeqFields(
        tokenizer,
        decoder_start_token_id=decoder_start_token_id,
        max_length=max_length,
        max_target_length=max_target_length,
        prefix=prefix,
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
