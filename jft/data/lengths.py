# SPDX-License-Identifier: Apache-2.0
"""How long a row of tokens may be."""

from typing import Any

from jft.types import InputError

UNKNOWN_LENGTH = 10**9  # a tokenizer that does not know its model's length says 1e30


def check_max_length(
    tokenizer: Any, max_length: int, *, num_special: int, name: str = "max_length"
) -> None:
    """Refuse a length that has no room for text, or that the model does not take.

    Args:
      tokenizer: of transformers.
      max_length: of a row, in tokens.
      num_special: tokens of each row that are no text.
      name: of the option, for the message.

    Raises:
      InputError: says what the length may be.
    """
    longest = tokenizer.model_max_length
    if not num_special < max_length <= longest:
        known = f" and at most {longest}" if longest < UNKNOWN_LENGTH else ""
        raise InputError(
            f"{name} is {max_length} tokens; expected more than the {num_special} "
            f"special tokens of each text{known}, the longest that the model takes."
        )
