# SPDX-License-Identifier: Apache-2.0
"""What RoBERTa has and BERT has not: positions that skip padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jft.models import get_family
from jft.models.layers import Embed, normal
from jft.models.roberta import count_tokens
from jft.types import InputError
from tests.models import peer
from tests.models.table import TABLE


def test_positions_of_the_batch_replace_those_that_are_counted():
    row = TABLE["roberta"]
    config = peer.full_config("roberta", row, "base")
    module, params = peer.make_jft("roberta", config, "base")
    batch = peer.make_batch(row, config)
    apply = jax.jit(lambda batch: module.apply({"params": params}, batch))
    expected = apply(batch)["last_hidden_state"]
    counted = np.asarray(count_tokens(jnp.asarray(batch["input_ids"]), 1))
    given = apply(batch | {"position_ids": counted})["last_hidden_state"]
    np.testing.assert_array_equal(given, expected)
    moved = apply(batch | {"position_ids": counted + 1})["last_hidden_state"]
    assert np.abs(moved - expected).max() > 0.1


def test_padding_has_no_gradient_and_starts_at_zero():
    table = Embed(5, 3, normal(1.0), 2)
    ids = jnp.asarray([[4, 2, 2, 1]])
    params = nn.init(Embed.__call__, table)(jax.random.key(0), ids)
    rows = np.asarray(params["params"]["embedding"])
    np.testing.assert_array_equal((rows == 0).all(axis=1), [0, 0, 1, 0, 0])
    grads = jax.grad(lambda params: table.apply(params, ids).sum())(params)
    np.testing.assert_array_equal(grads["params"]["embedding"][:, 0], [0, 1, 0, 0, 1])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pad_token_id", None),
        ("pad_token_id", 512),  # positions begin behind it, and there are 512
        ("is_decoder", True),
        ("add_cross_attention", True),
        ("position_embedding_type", "relative_key"),
    ],
)
def test_value_that_cannot_be_honoured_is_named(field, value):
    with pytest.raises(InputError, match=field):
        get_family("roberta").config_from_dict({field: value})
