# SPDX-License-Identifier: Apache-2.0
"""How deep a parameter is: the stage of the forward that uses it first."""

import enum
import re
from collections.abc import Sequence

from jft.types import InputError, LayerIndex


class Place(enum.Enum):
    """Where in a model a parameter is."""

    EMBEDDINGS = enum.auto()
    BLOCK = enum.auto()  # of the only stack, or of the encoder before a decoder
    ENCODER_END = enum.auto()  # with the last block of an encoder before a decoder
    DECODER_BLOCK = enum.auto()  # of a decoder behind an encoder
    END = enum.auto()  # with the last block
    HEAD = enum.auto()


Depths = Sequence[tuple[str, Place]]  # regex of a whole path -> place


def make_layer_index(
    model_type: str, depths: Depths, *, num_layers: int, num_encoder_layers: int = 0
) -> LayerIndex:
    r"""Make ``path -> depth``: embeddings 0, block i is i + 1, the head the last.

    Args:
      model_type: what to call the model in errors.
      depths: ordered; the first that matches wins. The group of a regex, where it has
        one, is the number of a block.
      num_layers: number of blocks, those of an encoder and of its decoder together.
      num_encoder_layers: how many of them are the encoder's before a decoder.

    Returns:
      The function. A path that nothing matches raises, as do blocks that are not there.

    >>> depths = [(r"embed/.+", Place.EMBEDDINGS), (r"layers/(\d+)/.+", Place.BLOCK)]
    >>> make_layer_index("toy", depths, num_layers=2)("layers/1/kernel")
    2
    """
    first = {
        Place.EMBEDDINGS: 0,
        Place.BLOCK: 1,
        Place.ENCODER_END: num_encoder_layers,
        Place.DECODER_BLOCK: num_encoder_layers + 1,
        Place.END: num_layers,
        Place.HEAD: num_layers + 1,
    }
    last = first | {
        Place.BLOCK: num_encoder_layers or num_layers,
        Place.DECODER_BLOCK: num_layers,
    }
    compiled = [(re.compile(pattern), place) for pattern, place in depths]

    def layer_index(path: str) -> int:
        for pattern, place in compiled:
            if match := pattern.fullmatch(path):
                depth = first[place] + (int(match[1]) if pattern.groups else 0)
                if depth > last[place]:
                    break
                return depth
        raise InputError(
            f"parameter {path!r} belongs to no layer of a {model_type} of {num_layers} "
            f"blocks; known are {[pattern for pattern, _ in depths]}."
        )

    return layer_index
