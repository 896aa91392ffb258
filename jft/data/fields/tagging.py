# SPDX-License-Identifier: Apache-2.0
"""Tags of words: from words to tokens that carry them, and back to one tag a word."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jft.data.fields.padding import IGNORED, Pad
from jft.data.fields.tokens import Row, TokenizerFields, check_fast, check_max_length
from jft.data.sources.source import Example

OUTSIDE = "O"  # of no entity, in every scheme of tags


class TaggingFields(TokenizerFields):
    """The words of one example -> one row; made by `make_tagging_fields`."""

    host_fields = ("word_tokens", "truncated")

    def __init__(self, tokenizer: Any, *, max_length: int) -> None:
        super().__init__(tokenizer, max_length=max_length)
        self.max_length = max_length
        self.padding = {**self.padding, "targets": Pad(IGNORED)}
        self.padding_side = "right"  # so that a token's position is that of its logits
        self.prefix = self._prefix()

    def __call__(self, examples: Sequence[Example]) -> list[list[Row]]:
        """Prepare examples, all in one call of the tokenizer."""
        if not examples:
            return []
        words = [[self._marked(w) for w in example["words"]] for example in examples]
        encoded = self.encode(
            words,
            is_split_into_words=True,
            truncation=True,
            max_length=self.max_length,
        )
        rows = []
        for i, example in enumerate(examples):
            word_tokens = _first_tokens(encoded.word_ids(i), len(words[i]))
            row = {
                **self.model_row(encoded, i),
                "word_tokens": word_tokens,
                "truncated": np.asarray(
                    bool(encoded.encodings[i].overflowing), np.int32
                ),
            }
            if "targets" in example:
                kept = word_tokens >= 0
                row["targets"] = np.full_like(row["input_ids"], IGNORED)
                row["targets"][word_tokens[kept]] = np.asarray(example["targets"])[kept]
            rows.append([row])
        return rows

    def _marked(self, word: str) -> str:
        return self.prefix + word if word else word

    def _prefix(self) -> str:
        """What makes a lone word the tokens that it has behind a space in a text."""
        text, words, spaced = (
            self.encode(texts, add_special_tokens=False, **options)["input_ids"][0]
            for texts, options in (
                (["a a"], {}),
                ([["a", "a"]], {"is_split_into_words": True}),
                ([[" a", " a"]], {"is_split_into_words": True}),
            )
        )
        return " " if words != text and spaced[-1:] == text[-1:] else ""


def make_tagging_fields(tokenizer: Any, *, max_length: int) -> TaggingFields:
    """Make the fields of words with a tag each.

    A word becomes one token or several; the first carries the word's tag, all others
    and the special tokens carry none. Words that have no token (control characters)
    leave the others where they are. A tokenizer that marks the space before a word
    (byte-level ones, as GPT-2's and RoBERTa's) gets that space for every word, the
    first too: with ``add_prefix_space`` it does the same itself.

    Args:
      tokenizer: a fast one of transformers; copied.
      max_length: of a row, in tokens, special tokens included; words behind are cut.

    Returns:
      A picklable ``examples -> rows``, one row an example in a list of its own:
      ``input_ids``, ``attention_mask`` and, where the tokenizer gives them,
      ``token_type_ids``, each int32 [l]; ``word_tokens`` int32 [words], the position of
      each word's first token, -1 where it has none or was cut; ``truncated``, 1 where
      the row was cut, else 0; ``targets`` int32 [l], `IGNORED` where there is no tag,
      if the example has them. The example has ``words``, strings, and ``targets``
      int32 [words], a tag each. Rows are padded on the right, whichever side the
      tokenizer prefers.

    Raises:
      InputError: for a slow tokenizer, one with nothing to pad with, or a
        ``max_length`` as `make_text_fields` refuses it.
    """
    check_fast(tokenizer, "token classification")
    check_max_length(tokenizer, max_length)
    return TaggingFields(tokenizer, max_length=max_length)


def read_tags(
    predicted_ids: np.ndarray, word_tokens: np.ndarray, tag_names: Sequence[str]
) -> list[str]:
    """Read one tag a word off what was predicted for each token of a row.

    Args:
      predicted_ids: int [L], the most probable tag of each token, with or without
        padding.
      word_tokens: int [words], of `make_tagging_fields`.
      tag_names: by id.

    Returns:
      The tags; of words without a token ``"O"``, or the first name if there is no "O".

    Example:
      >>> read_tags(np.array([0, 2, 1, 0]), np.array([1, 2, -1]), ("O", "I", "B"))
      ['B', 'I', 'O']
    """
    outside = OUTSIDE if OUTSIDE in tag_names else tag_names[0]
    return [tag_names[predicted_ids[i]] if i >= 0 else outside for i in word_tokens]


def _first_tokens(word_ids: Sequence[int | None], num_words: int) -> np.ndarray:
    """The position of each word's first token [words]; -1 where it has none."""
    found = np.full(num_words, -1, np.int32)
    for position in reversed(range(len(word_ids))):
        word = word_ids[position]
        if word is not None:
            found[word] = position
    return found
