# SPDX-License-Identifier: Apache-2.0
"""From a text to the fields of a batch, as the model's tokenizer does it."""

import copy
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from jft.data.sources import Example, digest
from jft.data.targets import target_fields
from jft.types import Batch, InputError

# Tokenizing takes longer than all else a batch needs: texts are kept when done,
# without their padding.
KEPT_TEXTS = 2**17
UNKNOWN_LENGTH = 10**9  # a tokenizer that does not know its model's length says 1e30


class TextFields:
    """``example -> {input_ids, attention_mask, …}``; made by `make_text_fields`.

    ``settings`` is what the result depends on besides the example: a loader keeps it
    in its state.
    """

    def __init__(
        self, tokenizer: Any, *, max_length: int, num_classes: int | None
    ) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.num_classes = num_classes
        self.settings = {
            "tokenizer": _fingerprint(tokenizer),
            "max_length": max_length,
        }
        self._pad = {
            "input_ids": _pad_token(tokenizer),
            "token_type_ids": tokenizer.pad_token_type_id,
        }
        self._open_cache()

    def __call__(self, example: Example) -> dict[str, np.ndarray]:
        """Prepare one example."""
        tokens = self._tokens(example["text"], example.get("text_pair"))
        padded = {name: self._padded(name, x) for name, x in tokens.items()}
        return {**padded, **target_fields(example, num_classes=self.num_classes)}

    def _padded(self, name: str, values: np.ndarray) -> np.ndarray:
        missing = self.max_length - len(values)
        sides = (missing, 0) if self.tokenizer.padding_side == "left" else (0, missing)
        return np.pad(values, sides, constant_values=self._pad.get(name, 0))

    def _open_cache(self) -> None:
        # the first call sets the tokenizer's own state, which threads must not race for
        self._encode("", None)
        self._tokens = lru_cache(KEPT_TEXTS)(self._encode)

    def _encode(self, text: str, text_pair: str | None) -> Mapping[str, np.ndarray]:
        encoded = self.tokenizer(
            text, text_pair, truncation=True, max_length=self.max_length
        )
        names = ("input_ids", "attention_mask", "token_type_ids")
        return {n: np.asarray(encoded[n], np.int32) for n in names if n in encoded}

    def __getstate__(self) -> dict[str, Any]:
        return {name: x for name, x in vars(self).items() if name != "_tokens"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open_cache()


def make_text_fields(
    tokenizer: Any, *, max_length: int, num_classes: int | None = None
) -> TextFields:
    """Make the fields of texts, or of pairs of texts, all of one length.

    Every text is tokenized with the tokenizer's special tokens, cut to ``max_length``
    tokens (of a pair, the longer text first) and padded on the tokenizer's side. A
    tokenizer without a padding token pads with its end-of-text token: the attention
    mask says what is real.

    Args:
      tokenizer: of transformers, as ``AutoTokenizer`` loads it; copied.
      max_length: of the fields, in tokens, special tokens included.
      num_classes: targets must lie below; None leaves that check to the source.

    Returns:
      A picklable ``example -> {"input_ids": int32 [L], "attention_mask": int32 [L],
      "token_type_ids": int32 [L], "targets": int32, "index": int32}``: token types
      where the tokenizer gives them, the last two where the example has them. The
      example's text is ``text``; ``text_pair`` is a second one.

    Raises:
      InputError: if the tokenizer has nothing to pad with, or ``max_length`` leaves no
        room for text or is longer than the tokenizer says that its model takes.
    """
    longest = tokenizer.model_max_length
    special = tokenizer.num_special_tokens_to_add(pair=False)
    if not special < max_length <= longest:
        known = f" and at most {longest}" if longest < UNKNOWN_LENGTH else ""
        raise InputError(
            f"max_length is {max_length} tokens; expected more than the {special} "
            f"special tokens of each text{known}, the longest that the model takes."
        )
    return TextFields(
        copy.deepcopy(tokenizer), max_length=max_length, num_classes=num_classes
    )


def trim_padding(batch: Batch, *, multiple: int = 1) -> dict[str, Any]:
    """Drop the columns that are padding in every row of a batch of texts.

    Args:
      batch: with ``attention_mask`` [B, L].
      multiple: the length is rounded up to one of it (at most L), so that batches
        have few different shapes and a program compiles few times.

    Returns:
      The batch with every field of shape [B, L, …] cut to the new length, on the side
      where the padding is.

    Example:
      >>> mask = np.array([[1, 1, 0, 0, 0], [1, 0, 0, 0, 0]])
      >>> trim_padding({"attention_mask": mask}, multiple=2)["attention_mask"]
      array([[1, 1],
             [1, 0]])
    """
    attended = np.asarray(batch["attention_mask"])
    columns = np.flatnonzero(attended.any(axis=0))
    if not len(columns):
        return dict(batch)
    length = attended.shape[1]
    on_the_left = columns[0] > 0
    real = length - columns[0] if on_the_left else columns[-1] + 1
    kept = min(-(-int(real) // multiple) * multiple, length)
    cut = slice(length - kept, None) if on_the_left else slice(kept)
    return {
        name: x[:, cut] if np.shape(x)[:2] == attended.shape else x
        for name, x in batch.items()
    }


def _pad_token(tokenizer: Any) -> int:
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise InputError(
        "the tokenizer has neither a padding nor an end-of-text token, so texts of "
        "different lengths cannot form a batch; give it one: tokenizer.pad_token = …."
    )


def _fingerprint(tokenizer: Any) -> str:
    """A digest of all that decides the tokens of a text."""
    if tokenizer.is_fast:
        fresh = copy.deepcopy(tokenizer.backend_tokenizer)
        fresh.no_truncation()  # left behind by the last call, whichever it was
        fresh.no_padding()
        rules = fresh.to_str()
    else:
        rules = json.dumps(sorted(tokenizer.get_vocab().items()))
    sides = f"{tokenizer.padding_side} {tokenizer.truncation_side}"
    return digest([type(tokenizer).__name__, rules, sides, str(_pad_token(tokenizer))])
