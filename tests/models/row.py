# SPDX-License-Identifier: Apache-2.0
"""What a family of text models says of itself, to be tested."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Row(NamedTuple):
    """How one family is tested."""

    config: Mapping[str, Any]  # tiny, without dropout; two blocks or more
    # name -> (task to compare, changes); the plain config is compared for every head
    variants: Mapping[str, tuple[str, Mapping[str, Any]]]
    num_params: Mapping[str, tuple[str, int]]  # published name -> (task, exact count)
    dropout: Mapping[str, float]  # every rate that training has, all different
    # what ends a block's attention, and its MLP, as the checkpoints name it; once a
    # block each, and of a decoder that reads an encoder twice
    block_ends: tuple[str, str]
    # (regex of a checkpoint's key, factor): brings the logits' spread to about 1
    scales: Sequence[tuple[str, float]] = ()
    # parameters whose gradient is zero but for rounding, such as a key's bias
    zero_grad: str = r"(?!)"
    encoder_decoder: bool = False
    left_padding: bool = False  # one text is padded on the left
    token_types: int = 0  # ids of token types to draw from; 0: the field is left out
