# SPDX-License-Identifier: Apache-2.0
"""Documents for causal language models: every token is predicted from those before."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jft.data.fields.padding import IGNORED, Pad
from jft.data.fields.tokens import Row, TokenizerFields, check_max_length, pad_token
from jft.data.sources.source import Example
from jft.types import InputError


def next_token_padding(tokenizer: Any) -> dict[str, Pad]:
    """What fills rows of tokens whose targets are the tokens behind them."""
    return {
        "input_ids": Pad(pad_token(tokenizer)),
        "attention_mask": Pad(0),
        "targets": Pad(IGNORED),
    }


class LanguageFields(TokenizerFields):
    """One document -> rows of tokens and those behind; see `make_language_fields`."""

    def __init__(self, tokenizer: Any, *, max_length: int, overlap: int) -> None:
        super().__init__(tokenizer, max_length=max_length, overlap=overlap)
        self.max_length = max_length
        self.overlap = overlap
        self.padding = next_token_padding(tokenizer)
        self.padding_side = "right"  # positions count from the first token

    def __call__(self, examples: Sequence[Example]) -> list[list[Row]]:
        """Prepare examples, all in one call of the tokenizer."""
        if not examples:
            return []
        encoded = self.encode([example["text"] for example in examples])
        return [list(self._rows(self._ended(ids))) for ids in encoded["input_ids"]]

    def _ended(self, ids: Sequence[int]) -> np.ndarray:
        eos = self.tokenizer.eos_token_id
        ended = bool(ids) and ids[-1] == eos  # some tokenizers do it themselves
        return np.asarray(ids if ended else [*ids, eos], np.int32)

    def _rows(self, tokens: np.ndarray) -> Iterator[Row]:
        """The pairs (token, its successor) of a document, in pieces."""
        targets = tokens[1:] if len(tokens) > 1 else np.array([IGNORED], np.int32)
        step = self.max_length - self.overlap
        last_start = max(len(targets) - self.overlap, 1)
        for start in range(0, last_start, step):
            piece = slice(start, start + self.max_length)
            asked = targets[piece].copy()
            if start:
                asked[: self.overlap] = IGNORED  # the piece before asks for them
            yield {
                "input_ids": tokens[piece][: len(asked)],
                "attention_mask": np.ones(len(asked), np.int32),
                "targets": asked,
            }


def make_language_fields(
    tokenizer: Any, *, max_length: int, overlap: int = 0
) -> LanguageFields:
    """Make the fields of documents for a causal language model.

    A document is what the tokenizer makes of its text, ended by one end-of-text token.
    ``targets[t]`` is the token behind ``input_ids[t]``. Longer documents are cut into
    pieces of ``max_length``: the last target of a piece is the first input of the next
    one. So every token but a document's first is asked for exactly once, with or
    without an overlap, and the summed loss of all rows is that of the documents. With
    ``max_length`` 2 the document ``a b c end`` gives the inputs ``a b`` and ``c`` with
    the targets ``b c`` and ``end``.

    Args:
      tokenizer: of transformers, as ``AutoTokenizer`` loads it; copied.
      max_length: of a row, in tokens.
      overlap: inputs that a piece repeats from the piece before, as context; there
        ``targets`` are IGNORED. 0 starts each piece without context.

    Returns:
      A picklable ``examples -> rows``, the pieces of each example in their order:
      ``input_ids``, ``attention_mask`` and ``targets``, each int32 [l]. The example's
      document is ``text``. Rows are padded on the right, whichever side the tokenizer
      prefers.

    Raises:
      InputError: if the tokenizer has no end-of-text token, for an overlap that leaves
        a piece nothing new, or a ``max_length`` as `make_text_fields` refuses it.
    """
    check_max_length(tokenizer, max_length)
    if not 0 <= overlap < max_length:
        raise InputError(
            f"overlap is {overlap} tokens and max_length {max_length}; expected an "
            "overlap from 0 to max_length - 1."
        )
    if tokenizer.eos_token_id is None:
        raise InputError(
            "the tokenizer has no end-of-text token, so a language model could not "
            "learn where texts end; give it one: tokenizer.eos_token = …."
        )
    return LanguageFields(tokenizer, max_length=max_length, overlap=overlap)
