# SPDX-License-Identifier: Apache-2.0
"""Documents for masked language models, and the masks that each epoch draws anew.

Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language
Understanding", arXiv 1810.04805, section 3.1 and appendix C.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from jft.data.fields.padding import IGNORED, Pad
from jft.data.fields.tokens import Row, TokenizerFields, check_fast, check_max_length
from jft.data.sources.source import Example
from jft.types import InputError

MASKED, RANDOM = 0.8, 0.1  # shares of the chosen tokens; the others stay as they are


class MaskedFields(TokenizerFields):
    """One document -> rows without masks yet; made by `make_masked_fields`."""

    def __init__(self, tokenizer: Any, *, max_length: int, whole_word: bool) -> None:
        super().__init__(tokenizer, max_length=max_length, whole_word=whole_word)
        self.max_length = max_length
        self.host_fields = ("word_ids",) if whole_word else ()
        self.padding = {**self.padding, "targets": Pad(IGNORED)}
        self.tokenizer.truncation_side = "right"  # first piece first; none is lost

    def __call__(self, examples: Sequence[Example]) -> list[list[Row]]:
        """Prepare examples, all in one call of the tokenizer."""
        if not examples:
            return []
        encoded = self.encode(
            [example["text"] for example in examples],
            truncation=True,
            max_length=self.max_length,
            return_overflowing_tokens=True,
        )
        rows: list[list[Row]] = [[] for _ in examples]
        for i, owner in enumerate(encoded["overflow_to_sample_mapping"]):
            row = self.model_row(encoded, i)
            if self.host_fields:
                words = [-1 if word is None else word for word in encoded.word_ids(i)]
                row["word_ids"] = np.asarray(words, np.int32)
            rows[owner].append(row)
        return rows


def make_masked_fields(
    tokenizer: Any, *, max_length: int, whole_word: bool = False
) -> MaskedFields:
    """Make the fields of documents for a masked language model.

    Longer documents are cut into pieces, each with the tokenizer's special tokens; no
    token is lost. The rows have no masks: `make_mask_tokens` draws those each time that
    a row is read.

    Args:
      tokenizer: a fast one of transformers; copied.
      max_length: of a row, in tokens, special tokens included.
      whole_word: also say which word each token is of.

    Returns:
      A picklable ``examples -> rows``, the pieces of each example in their order:
      ``input_ids``, ``attention_mask`` and, where the tokenizer gives them,
      ``token_type_ids``, each int32 [l]; with ``whole_word`` also ``word_ids`` int32
      [l], which number the document's words, -1 at special tokens. The example's
      document is ``text``.

    Raises:
      InputError: for a slow tokenizer, one with nothing to pad with, or a
        ``max_length`` as `make_text_fields` refuses it.
    """
    check_fast(tokenizer, "masked language modelling")
    check_max_length(tokenizer, max_length)
    return MaskedFields(tokenizer, max_length=max_length, whole_word=whole_word)


@dataclass(frozen=True, kw_only=True)
class MaskTokens:
    """``(row, generator) -> row`` with masks and targets; see `make_mask_tokens`."""

    mask_id: int
    special_ids: tuple[int, ...] = field(repr=False)  # that are never chosen
    vocab_size: int
    rate: float
    whole_word: bool

    @property
    def settings(self) -> dict[str, Any]:
        """What the rows depend on besides themselves, for a loader's state."""
        return {"mask_rate": self.rate, "whole_word": self.whole_word}

    def __call__(self, example: Example, generator: np.random.Generator) -> Row:
        """Mask a copy of an unpadded row; the generator is consumed."""
        tokens = np.asarray(example["input_ids"])
        chosen = self._choose(example, tokens, generator)
        draws = generator.random(len(tokens))
        randoms = self._ordinary[
            generator.integers(len(self._ordinary), size=len(tokens))
        ]
        masked = chosen & (draws < MASKED)
        replaced = chosen & ~masked & (draws < MASKED + RANDOM)
        inputs = np.where(masked, np.int32(self.mask_id), tokens)
        return {
            **example,
            "input_ids": np.where(replaced, randoms, inputs).astype(np.int32),
            "targets": np.where(chosen, tokens, np.int32(IGNORED)),
        }

    def _choose(
        self, example: Example, tokens: np.ndarray, generator: np.random.Generator
    ) -> np.ndarray:
        """Which tokens are asked for, bool [l]: one at least, where there is one."""
        chosen = np.zeros(len(tokens), bool)
        places = np.flatnonzero(self._is_ordinary[tokens])
        if not len(places):
            return chosen
        words = self._words(example)[places] if self.whole_word else places
        begins = np.append(True, words[1:] != words[:-1])
        picked = generator.random(np.count_nonzero(begins)) < self.rate
        if not picked.any():
            picked[generator.integers(len(picked))] = True
        chosen[places] = picked[np.cumsum(begins) - 1]
        return chosen

    def _words(self, example: Example) -> np.ndarray:
        if "word_ids" not in example:
            raise InputError(
                f"masks of whole words need the field word_ids, but the rows have "
                f"{sorted(example)}. Make them with make_masked_fields(…, "
                "whole_word=True)."
            )
        return np.asarray(example["word_ids"])

    @cached_property
    def _is_ordinary(self) -> np.ndarray:
        is_ordinary = np.ones(self.vocab_size, bool)
        is_ordinary[list(self.special_ids)] = False
        return is_ordinary

    @cached_property
    def _ordinary(self) -> np.ndarray:
        return np.flatnonzero(self._is_ordinary)


def make_mask_tokens(
    tokenizer: Any, *, rate: float = 0.15, whole_word: bool = False
) -> MaskTokens:
    """Make the change of a row that hides some of its tokens and asks for them.

    Each token that is not special is chosen with the probability ``rate``, and one at
    least in each row that has such tokens. Of the chosen, 80 % become the mask, 10 % a
    random token that is not special, and 10 % stay, each by a draw of its own. With
    ``whole_word`` words are chosen, with all of their tokens.

    Args:
      tokenizer: of the rows.
      rate: above 0 and at most 1.
      whole_word: the rows must have ``word_ids``, see `make_masked_fields`.

    Returns:
      A picklable ``(row, generator) -> row``, for the loader's ``augment``: ``targets``
      int32 [l] are the tokens that were there where they are asked for, else IGNORED.
      The same state of the generator gives the same masks.

    Raises:
      InputError: if the tokenizer has no mask, or for a rate outside its range.

    Example:
      >>> mask_tokens = MaskTokens(
      ...     mask_id=1, special_ids=(0, 1), vocab_size=9, rate=0.5, whole_word=False
      ... )
      >>> row = {"input_ids": np.array([0, 5, 6, 7, 8, 0], np.int32)}
      >>> masked = mask_tokens(row, np.random.default_rng(0))
      >>> masked["input_ids"].tolist(), masked["targets"].tolist()
      ([0, 5, 1, 1, 1, 0], [-100, -100, 6, 7, 8, -100])
    """
    if not 0 < rate <= 1:
        raise InputError(f"the rate of masks is {rate}; expected above 0, at most 1.")
    if tokenizer.mask_token_id is None:
        raise InputError(
            f"the tokenizer, a {type(tokenizer).__name__}, has no mask, so its model "
            "was not trained to fill masks in. Use a masked language model, such as "
            "BERT, or train this one as a causal one."
        )
    return MaskTokens(
        mask_id=int(tokenizer.mask_token_id),
        special_ids=tuple(sorted(set(tokenizer.all_special_ids))),
        vocab_size=len(tokenizer),
        rate=rate,
        whole_word=whole_word,
    )
