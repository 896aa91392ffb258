# SPDX-License-Identifier: Apache-2.0
"""Packed rows: several texts, one after another, in one row of a batch.

Two fields say so. ``segment_ids [B, L]`` numbers the texts of a row from 1 on; 0 is
padding. ``position_ids [B, L]`` counts the tokens of each text from 0, whatever the
family adds to it. They take the place of ``attention_mask``. A token looks only at
tokens of its own text, so that every token's answer, and every gradient, is what it
would be were its text alone in its row.

Heads that answer for each token answer such a row as any other. Heads that read the
first token of a text need a third field: ``first_tokens [B]`` numbers those tokens
among all of the batch, row after row, and the answers ``[B, …]`` are in its order.
Other fields of an example, such as its target, are ``[B]`` then too. Krell et al. 2021,
"Efficient Sequence Packing without Cross-contamination", arXiv 2107.02027.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jft.models.masks import Mask
from jft.types import Batch, InputError

HEADS_OF_TOKENS = ("masked_lm", "causal_lm", "token_classification")


def heads_of_tokens(config: Any) -> tuple[str, ...]:
    """A family whose packed rows are exact whatever its config.json says."""
    return HEADS_OF_TOKENS


def heads_of_encoders(config: Any) -> tuple[str, ...]:
    """The same where the classifier of texts reads their first token."""
    return (*HEADS_OF_TOKENS, "sequence_classification")


def is_packed(batch: Mapping[str, Any]) -> bool:
    """Whether the batch's rows hold several texts."""
    return "segment_ids" in batch


def same_text(batch: Batch) -> jax.Array:
    """Say which tokens are of one text, padding being one too: ``[B, 1, L, L]``.

    >>> import numpy as np
    >>> same_text({"segment_ids": np.array([[1, 2, 2]])})[0, 0].astype(int).tolist()
    [[1, 0, 0], [0, 1, 1], [0, 1, 1]]
    """
    segments = jnp.asarray(batch["segment_ids"])
    return segments[:, None, :, None] == segments[:, None, None, :]


def first_tokens(batch: Mapping[str, Any]) -> jax.Array | None:
    """Where the first token of each text is among all tokens, ``[B]``; None: not said.

    Without it each row is one text.
    """
    if "first_tokens" not in batch:
        return None
    return jnp.asarray(batch["first_tokens"], jnp.int32)


def tokens_read(x: jax.Array, num_read: int | None, first: jax.Array | None) -> Any:
    """Keep the tokens that a head reads, the first ``num_read``; None: all.

    Args:
      x: ``[R, L, …]``.
      num_read: 1 where ``first`` is given.
      first: of packed rows, as `first_tokens` gives it.

    Returns:
      ``[R, num_read, …]``, or ``[B, 1, …]`` of packed rows.
    """
    if num_read is None:
        return x
    if first is None:
        return x[:, :num_read]
    return x.reshape(-1, *x.shape[2:])[first][:, None]


def rows_read(x: jax.Array, length: int, first: jax.Array | None) -> jax.Array:
    """The row that each first token is in: ``[R, …] -> [B, …]``."""
    return x if first is None else x[first // length]


def mask_read(mask: Mask, length: int, first: jax.Array | None) -> Mask:
    """What each first token may look at: ``[R, 1, L, L] -> [B, 1, 1, L]``."""
    if first is None:
        return mask
    rows = mask.allowed[first // length, :, first % length]
    return Mask(allowed=rows[:, :, None])


def check_packed(batch: Batch, task: str, *, num_read: int | None) -> None:
    """Refuse packed rows that lack a field, or that the head cannot answer.

    Raises:
      InputError: when the forward is traced.
    """
    if not is_packed(batch):
        return
    if num_read is not None and "first_tokens" not in batch:
        raise InputError(
            f"the batch has segment_ids, so its rows hold several texts, and the head "
            f"{task!r} reads the first token of each; give first_tokens [B], their "
            f"places among all tokens. Its fields are {sorted(batch)}."
        )
    if num_read is None and task not in HEADS_OF_TOKENS:
        refuse_packed(batch, f"the head {task!r} answers once a row, not once a token")
    if "cache_mask" in batch:
        refuse_packed(batch, "texts are written one a row")
    if "position_ids" not in batch:
        raise InputError(
            "the batch has segment_ids, so its rows hold several texts, but no "
            "position_ids; give position_ids [B, L] that count from 0 in each text. "
            f"Its fields are {sorted(batch)}."
        )


def refuse_packed(batch: Batch, why: str) -> None:
    """Say why rows of several texts cannot be read, where the batch has them.

    Raises:
      InputError: when the forward is traced.
    """
    if is_packed(batch):
        raise InputError(
            f"the batch has segment_ids, so its rows hold several texts, but {why}; "
            f"give one text a row. The heads {sorted(HEADS_OF_TOKENS)} read packed "
            "rows, in families whose packed_heads say so."
        )
