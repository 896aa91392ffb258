# SPDX-License-Identifier: Apache-2.0
"""ModernBERT reads the names of transformers 4 and 5, and names what it cannot do."""

import pytest

from jft.models.modernbert_config import config_from_dict
from jft.types import InputError


def test_names_of_transformers_4_say_the_same():
    old = {
        "num_hidden_layers": 4,
        "global_attn_every_n_layers": 2,
        "global_rope_theta": 50.0,
        "local_rope_theta": 20.0,
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
    }
    new = {
        "num_hidden_layers": 4,
        "layer_types": ["full_attention", "sliding_attention"] * 2,
        "rope_parameters": {
            "full_attention": {"rope_theta": 50.0, "type": "linear", "factor": 2.0},
            "sliding_attention": {
                "rope_theta": 20.0,
                "rope_type": "linear",
                "factor": 2.0,
            },
        },
    }
    read, expected = config_from_dict(old), config_from_dict(new)
    assert read.layer_types == expected.layer_types
    assert read.ropes == expected.ropes
    assert [rope.theta for rope in read.ropes] == [50.0, 20.0]
    assert {rope.kind for rope in read.ropes} == {"linear"}


def test_theta_of_rope_parameters_wins_over_the_old_name():
    config = config_from_dict(
        {
            "global_rope_theta": 50.0,
            "local_rope_theta": 20.0,
            "rope_parameters": {"full_attention": {"rope_theta": 7.0}},
        }
    )
    assert [rope.theta for rope in config.ropes] == [7.0, 20.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_types": ["full_attention"]}, "layer_types is .* must be 22 of"),
        ({"layer_types": ["chunked_attention"] * 22}, "layer_types is"),
        ({"local_rope_theta": None}, "local_rope_theta is None"),
        ({"rope_parameters": {"rope_theta": 7.0}}, r"the keys \['rope_theta'\]"),
        (
            {"rope_parameters": {"full_attention": {"partial_rotary_factor": 0.5}}},
            "partial_rotary_factor 0.5",
        ),
        (
            {"rope_parameters": {"sliding_attention": {"rope_type": "axial"}}},
            "rope_type is 'axial'",
        ),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "must name its rope_ty"),
        ({"head_dim": 32}, "head_dim is 32; it must be hidden_size / num_attention"),
        ({"sliding_window": 5}, "sliding_window is 5; it must be half of local"),
        ({"classifier_pooling": "max"}, "classifier_pooling is 'max'"),
        ({"hidden_activation": "mish"}, "hidden_activation is 'mish'"),
        ({"pad_token_id": 50368}, "pad_token_id is 50368"),
    ],
)
def test_what_the_model_cannot_honour_is_named(changes, message):
    with pytest.raises(InputError, match=message):
        config_from_dict(changes)
