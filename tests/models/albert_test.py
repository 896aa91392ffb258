# SPDX-License-Identifier: Apache-2.0
"""What ALBERT has and BERT has not: layers that run more than once."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from jft.models import get_family
from jft.models.dropout import Dropout
from jft.types import InputError
from tests.models import peer
from tests.models.table import TABLE


def test_each_run_of_a_shared_layer_drops_out_other_values():
    row = TABLE["albert"]
    changes = {"num_hidden_groups": 1, "attention_probs_dropout_prob": 0.5}
    config = peer.full_config("albert", row, "masked_lm", changes)
    module, params = peer.make_jft("albert", config, "masked_lm")
    batch = peer.make_batch(row, config)
    drawn = []

    def record(call, args, kwargs, context):
        result = call(*args, **kwargs)
        words = isinstance(context.module, Dropout) and context.method_name == "words"
        if words and context.module.rate == 0.5:
            drawn.append(np.asarray(result))
        return result

    with nn.intercept_methods(record):
        rngs = {"dropout": jax.random.key(0)}
        module.apply({"params": params}, batch, deterministic=False, rngs=rngs)
    assert len(drawn) == config["num_hidden_layers"]
    for i, first in enumerate(drawn):
        assert all((first != later).any() for later in drawn[i + 1 :])


def test_more_groups_than_layers_are_refused():
    fields = {"num_hidden_layers": 2, "num_hidden_groups": 3}
    with pytest.raises(InputError, match="num_hidden_groups is 3"):
        get_family("albert").config_from_dict(fields)
