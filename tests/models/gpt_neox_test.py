# SPDX-License-Identifier: Apache-2.0
"""What is GPT-NeoX's alone."""

import pytest

from jft.models.gpt_neox import config_from_dict
from jft.types import InputError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("is_causal", False),
        ("hidden_act", "no such"),
        ("num_attention_heads", 7),
        ("rope_scaling", {"type": "no such", "factor": 2.0}),
    ],
)
def test_what_it_cannot_honour_is_named(field, value):
    expected = "rope_type" if field == "rope_scaling" else field
    with pytest.raises(InputError, match=expected):
        config_from_dict({field: value})


def test_rotary_fields_of_either_version():
    """As transformers: the family's own names, or those in ``rope_parameters``."""
    old = config_from_dict({"rotary_pct": 0.5, "rotary_emb_base": 500, "rope_theta": 9})
    new = {"partial_rotary_factor": 0.5, "rope_theta": 500}
    assert old.rope == config_from_dict({"rope_parameters": new}).rope
    assert (old.rope.width, old.rope.theta) == (48, 500.0)
    assert config_from_dict({}).rope.width == 24
