# SPDX-License-Identifier: Apache-2.0
"""Packed rows: several texts, one after another, in one row of a batch.

Two fields say so. ``segment_ids [B, L]`` numbers the texts of a row from 1 on; 0 is
padding. ``position_ids [B, L]`` counts the tokens of each text from 0, whatever the
family adds to it. They take the place of ``attention_mask``. A token looks only at
tokens of its own text, so that every token's answer, and every gradient, is what it
would be were its text alone in its row.

Only heads that answer for each token can say something of such a row. Krell et al.
2021, "Efficient Sequence Packing without Cross-contamination", arXiv 2107.02027.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jft.types import Batch, InputError

HEADS_OF_TOKENS = ("masked_lm", "causal_lm", "token_classification")


def heads_of_tokens(config: Any) -> tuple[str, ...]:
    """A family whose packed rows are exact whatever its config.json says."""
    return HEADS_OF_TOKENS


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


def check_packed(batch: Batch, task: str) -> None:
    """Refuse packed rows that lack their positions, or that the head cannot answer.

    Raises:
      InputError: when the forward is traced.
    """
    if not is_packed(batch):
        return
    if task not in HEADS_OF_TOKENS:
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
