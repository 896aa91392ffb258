# SPDX-License-Identifier: Apache-2.0
"""Depths from a table of places, against those counted by hand."""

import pytest

from jft.models.depth import Place, make_layer_index
from jft.types import InputError

TABLE = [
    (r"words", Place.EMBEDDINGS),
    (r".+/distances", Place.EMBEDDINGS),
    (r"encoder/norm", Place.ENCODER_END),
    (r"encoder/first", Place.BLOCK),
    (r"encoder/(\d+)/.+", Place.BLOCK),
    (r"decoder/(\d+)/.+", Place.DECODER_BLOCK),
    (r"decoder/norm", Place.END),
    (r"head", Place.HEAD),
]


@pytest.mark.parametrize(
    ("path", "depth"),
    [
        ("words", 0),
        ("encoder/0/distances", 0),  # the first rule that matches
        ("encoder/first", 1),
        ("encoder/0/w", 1),
        ("encoder/2/w", 3),
        ("encoder/norm", 3),
        ("decoder/0/w", 4),
        ("decoder/1/w", 5),
        ("decoder/norm", 5),
        ("head", 6),
    ],
)
def test_three_blocks_then_two(path, depth):
    index = make_layer_index("toy", TABLE, num_layers=5, num_encoder_layers=3)
    assert index(path) == depth


@pytest.mark.parametrize("path", ["encoder/3/w", "decoder/2/w", "words/x", "", "top"])
def test_a_path_of_no_place_is_refused(path):
    """A block that one stack has not is not the other's."""
    index = make_layer_index("toy", TABLE, num_layers=5, num_encoder_layers=3)
    with pytest.raises(InputError, match="belongs to no layer of a toy of 5 blocks"):
        index(path)


def test_blocks_of_one_stack_end_with_it():
    index = make_layer_index("toy", TABLE, num_layers=5)
    assert [index("encoder/4/w"), index("decoder/norm"), index("head")] == [5, 5, 6]
    with pytest.raises(InputError, match="encoder/5/w"):
        index("encoder/5/w")
