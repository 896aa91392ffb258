# SPDX-License-Identifier: Apache-2.0
"""From texts to the fields of a batch, as the model's tokenizer does it."""

import copy
import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from jft.data.fields.padding import Pad
from jft.data.sources.source import Example, digest
from jft.types import InputError

Row = dict[str, np.ndarray]  # field -> int32 [l], or a scalar

MODEL_FIELDS = ("input_ids", "attention_mask", "token_type_ids")
UNKNOWN_LENGTH = 10**9  # a tokenizer that does not know its model's length says 1e30


@runtime_checkable
class TextFieldsFn(Protocol):
    """Examples -> rows of fields that are not padded yet; picklable."""

    settings: Mapping[str, Any]  # JSON; all that the rows depend on but the examples
    padding: Mapping[str, Pad]  # of each field with a length axis that the model gets
    padding_side: str  # "right" or "left"
    host_fields: tuple[str, ...]  # whole numbers, kept for scoring: scalars or [any]

    def __call__(self, examples: Sequence[Example]) -> list[list[Row]]:
        """Return the rows of each example: one, or several where it has windows."""


class TokenizerFields:
    """What the fields of every task share: a tokenizer of their own.

    A tokenizer keeps the options of its last call as a state, so that threads must not
    call it at once: `encode` lets one in at a time.

    Args:
      tokenizer: of transformers; copied.
      settings: what the rows depend on besides the tokenizer and the class; JSON.
    """

    padding: Mapping[str, Pad]
    host_fields: tuple[str, ...] = ()

    def __init__(self, tokenizer: Any, **settings: Any) -> None:
        self.tokenizer = copy.deepcopy(tokenizer)
        self.padding_side: str = tokenizer.padding_side
        self.padding = {
            "input_ids": Pad(pad_token(tokenizer)),
            "attention_mask": Pad(0),
            "token_type_ids": Pad(int(tokenizer.pad_token_type_id)),
        }
        if "token_type_ids" not in tokenizer.model_input_names:
            del self.padding["token_type_ids"]
        self.settings: dict[str, Any] = {
            "fields": type(self).__name__,
            "tokenizer": fingerprint(tokenizer),
            **settings,
        }
        self._lock = threading.Lock()

    def encode(self, texts: Any, **options: Any) -> Any:
        """Call the tokenizer; its ``BatchEncoding``, as lists."""
        with self._lock:
            return self.tokenizer(
                texts, return_attention_mask=True, verbose=False, **options
            )

    def model_row(self, encoded: Any, row: int) -> Row:
        """Return what the model gets of one row of a batch that was encoded."""
        return {
            name: np.asarray(encoded[name][row], np.int32)
            for name in MODEL_FIELDS
            if name in self.padding
        }

    def __getstate__(self) -> dict[str, Any]:
        return {name: x for name, x in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock = threading.Lock()


class TextFields(TokenizerFields):
    """One text, or a pair, an example -> one row; made by `make_text_fields`."""

    host_fields = ("truncated",)

    def __init__(self, tokenizer: Any, *, max_length: int) -> None:
        super().__init__(tokenizer, max_length=max_length)
        self.max_length = max_length

    def __call__(self, examples: Sequence[Example]) -> list[list[Row]]:
        """Prepare examples, all in one call of the tokenizer."""
        if not examples:
            return []
        pairs = [(example["text"], example.get("text_pair")) for example in examples]
        texts = [text if pair is None else (text, pair) for text, pair in pairs]
        encoded = self.encode(texts, truncation=True, max_length=self.max_length)
        rows = []
        for i, example in enumerate(examples):
            cut = self._is_cut(encoded, i, texts[i])
            row = {**self.model_row(encoded, i), "truncated": np.asarray(cut, np.int32)}
            rows.append([{**row, **target_field(example)}])
        return rows

    def _is_cut(self, encoded: Any, row: int, text: Any) -> bool:
        if encoded.encodings:  # of a fast tokenizer, which keeps what it cut off
            return bool(encoded.encodings[row].overflowing)
        if len(encoded["input_ids"][row]) < self.max_length:
            return False
        return len(self.encode([text])["input_ids"][0]) > self.max_length


def make_text_fields(tokenizer: Any, *, max_length: int) -> TextFields:
    """Make the fields of texts, or of pairs of texts.

    Every text is tokenized with the tokenizer's special tokens and cut to
    ``max_length`` tokens (of a pair, the longer text first). A tokenizer without a
    padding token pads with its end-of-text token: the attention mask says what is real.

    Args:
      tokenizer: of transformers, as ``AutoTokenizer`` loads it, fast or not; copied.
      max_length: of a row, in tokens, special tokens included.

    Returns:
      A picklable ``examples -> rows``, one row an example in a list of its own:
      ``input_ids``, ``attention_mask`` and, where the tokenizer gives them,
      ``token_type_ids``, each int32 [l]; ``truncated``, 1 where the text was cut, else
      0; ``targets`` where the example has them (int32, or float32 of any shape). The
      example's text is ``text``; ``text_pair`` is a second one.

    Raises:
      InputError: if the tokenizer has nothing to pad with, or ``max_length`` leaves no
        room for text or is longer than the tokenizer says that its model takes.
    """
    check_max_length(tokenizer, max_length)
    return TextFields(tokenizer, max_length=max_length)


def check_max_length(
    tokenizer: Any, max_length: int, *, name: str = "max_length"
) -> None:
    """Refuse a length without room for text, or longer than the model takes.

    Raises:
      InputError: says between which numbers it must be.
    """
    longest = tokenizer.model_max_length
    special = tokenizer.num_special_tokens_to_add(pair=False)
    if not special < max_length <= longest:
        known = f" and at most {longest}" if longest < UNKNOWN_LENGTH else ""
        raise InputError(
            f"{name} is {max_length} tokens; expected more than the {special} "
            f"special tokens of each text{known}, the longest that the model takes."
        )


def check_fast(tokenizer: Any, purpose: str) -> None:
    """Refuse a tokenizer that cannot say which part of a text a token is of.

    Raises:
      InputError: says how to get one that can.
    """
    if not tokenizer.is_fast:
        raise InputError(
            f"{purpose} needs a fast tokenizer, which knows where in the text each "
            f"token comes from; {type(tokenizer).__name__} is a slow one. Use a model "
            "folder with a tokenizer.json (save_pretrained of a fast tokenizer writes "
            "it)."
        )


def target_field(example: Example) -> Row:
    """Return ``targets`` where the example has it: whole numbers int32, else float32.

    Example:
      >>> target_field({"targets": 1}), target_field({"text": "unknown"})
      ({'targets': array(1, dtype=int32)}, {})
    """
    if "targets" not in example:
        return {}
    targets = np.asarray(example["targets"])
    is_float = np.issubdtype(targets.dtype, np.floating)
    return {"targets": targets.astype(np.float32 if is_float else np.int32)}


def pad_token(tokenizer: Any) -> int:
    """Return the token that fills rows up: its padding token, or its end of text.

    Raises:
      InputError: if the tokenizer has neither.
    """
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise InputError(
        "the tokenizer has neither a padding nor an end-of-text token, so texts of "
        "different lengths cannot form a batch; give it one: tokenizer.pad_token = …."
    )


def fingerprint(tokenizer: Any) -> str:
    """Return a digest of all that decides the tokens of a text."""
    if tokenizer.is_fast:
        fresh = copy.deepcopy(tokenizer.backend_tokenizer)
        fresh.no_truncation()  # left behind by the last call, whichever it was
        fresh.no_padding()
        rules = fresh.to_str()
    else:
        options = {  # such as do_lower_case; names and paths decide nothing
            name: x for name, x in tokenizer.init_kwargs.items() if isinstance(x, int)
        }
        vocabulary = {**tokenizer.get_vocab(), **tokenizer.get_added_vocab()}
        rules = json.dumps([sorted(vocabulary.items()), sorted(options.items())])
    sides = f"{tokenizer.padding_side} {tokenizer.truncation_side}"
    names = " ".join(tokenizer.model_input_names)
    return digest(
        [type(tokenizer).__name__, rules, sides, names, str(pad_token(tokenizer))]
    )
