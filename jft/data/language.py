# SPDX-License-Identifier: Apache-2.0
"""Documents for causal language models: every token is predicted from those before."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jft.data.padding import IGNORED, Pad
from jft.data.sources import Example
from jft.data.tokens import check_max_length, fingerprint, pad_token
from jft.types import InputError

Row = dict[str, np.ndarray]


class LanguageFields:
    """Documents to rows of tokens and their successors; see `make_language_fields`."""

    padding_side = "right"  # a causal model's positions count from the first token
    host_fields = ()

    def __init__(self, tokenizer: Any, *, max_length: int, overlap: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.overlap = overlap
        self.settings = {
            "fields": "language",
            "tokenizer": fingerprint(tokenizer),
            "max_length": max_length,
            "overlap": overlap,
        }
        self.padding = {
            "input_ids": Pad(pad_token(tokenizer)),
            "attention_mask": Pad(0),
            "targets": Pad(IGNORED),
        }

    def __call__(self, examples: Sequence[Example]) -> list[list[Row]]:
        """Prepare many documents at once; one may give several rows."""
        encoded = self.tokenizer(
            [example["text"] for example in examples],
            return_attention_mask=False,
            verbose=False,  # documents may be longer than the model
        )
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
      A picklable ``examples -> rows of each``; a row is ``input_ids``,
      ``attention_mask`` and ``targets``, int32 [L]. The example's document is ``text``.

    Raises:
      InputError: if the tokenizer has no end-of-text token, or the lengths are such
        that no piece would have anything new.
    """
    check_max_length(tokenizer, max_length, num_special=0)
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
    return LanguageFields(
        copy.deepcopy(tokenizer), max_length=max_length, overlap=overlap
    )
