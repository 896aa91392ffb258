# SPDX-License-Identifier: Apache-2.0
"""What is GPT-2's alone."""

import pytest

from jft.models.gpt2 import config_from_dict
from jft.types import InputError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("add_cross_attention", True),
        ("is_causal", False),
        ("activation_function", "no such"),
        ("n_head", 5),
    ],
)
def test_what_it_cannot_honour_is_named(field, value):
    with pytest.raises(InputError, match=field):
        config_from_dict({field: value})


def test_other_names_of_fields_are_read():
    config = config_from_dict({"hidden_size": 24, "num_attention_heads": 3})
    assert (config.n_embd, config.n_head) == (24, 3)


def test_classifier_of_tokens_drops_as_much_as_is_given():
    assert config_from_dict({}).head_dropout == 0.1
    assert config_from_dict({"hidden_dropout": 0.3}).head_dropout == 0.3
    both = {"hidden_dropout": 0.3, "classifier_dropout": 0.0}
    assert config_from_dict(both).head_dropout == 0.0
