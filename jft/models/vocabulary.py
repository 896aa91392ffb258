# SPDX-License-Identifier: Apache-2.0
"""What a config.json says of a tokenizer: its size, and its special tokens' ids."""

from collections.abc import Mapping
from typing import Any

from jft.models.family import Family
from jft.types import InputError

ROLES = ("pad", "bos", "eos")


def settle_vocabulary(
    family: Family, config: Mapping[str, Any], tokenizer: Any
) -> dict[str, Any]:
    """Let a new model's config.json agree with the tokenizer that it will read with.

    What the config leaves out comes from the tokenizer: ``vocab_size``,
    ``pad_token_id``, ``bos_token_id``, ``eos_token_id`` and the family's
    ``special_ids``, such as what a decoder's text starts with; null where the tokenizer
    has no such token, for transformers would assume an id of its own. What the config
    names must agree; a larger ``vocab_size`` is fine.

    Args:
      family: of the model.
      config: config.json.
      tokenizer: of transformers.

    Returns:
      config.json with these fields.

    Raises:
      InputError: names the field, both values, and the token.
    """
    _check_class(family, tokenizer)
    settled = dict(config)
    if settled.get("vocab_size") is None:
        settled["vocab_size"] = len(tokenizer)
    wanted = {f"{role}_token_id": role for role in ROLES} | dict(family.special_ids)
    for field, role in wanted.items():
        token_id = getattr(tokenizer, f"{role}_token_id")
        if settled.get(field) is None:
            if token_id is None and field == "decoder_start_token_id":
                raise InputError(
                    f"the decoder of a {family.model_type} starts with the {role} "
                    "token, which the tokenizer has not; give it one, or name "
                    f"{field} in the config."
                )
            settled[field] = token_id
        elif token_id is not None and not _agrees(settled[field], token_id):
            token = getattr(tokenizer, f"{role}_token")
            raise InputError(
                f"config.json: {field} is {settled[field]}, but the tokenizer's {role} "
                f"token {token!r} has the id {token_id}. Leave {field} out, or take "
                "the tokenizer that belongs to it."
            )
    return settled


def _agrees(given: Any, token_id: int) -> bool:
    """Whether an id, or a list of them, holds the token's."""
    return token_id in given if isinstance(given, list) else given == token_id


def _check_class(family: Family, tokenizer: Any) -> None:
    own, found = family.tokenizer_class, type(tokenizer).__name__
    if own is not None and own != found:
        raise InputError(
            f"transformers reads every tokenizer of model_type {family.model_type!r} "
            f"as a {own}; this {found} would cut texts otherwise once it is loaded "
            "again. Take another model_type, such as 'qwen3' or 'llama'."
        )
