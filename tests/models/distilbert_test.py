# SPDX-License-Identifier: Apache-2.0
"""What DistilBERT has and BERT has not: names twice, sinusoids to start from."""

import jax
import numpy as np
import pytest

from jft.models import get_family
from jft.params import init_params
from jft.types import InputError

FAMILY = get_family("distilbert")


def test_fields_have_the_names_of_transformers_too():
    config = FAMILY.config_from_dict(
        {"dim": 48, "hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 1}
    )
    assert (config.dim, config.n_heads, config.n_layers) == (24, 3, 1)
    with pytest.raises(InputError, match="dim is 24, which does not divide"):
        FAMILY.config_from_dict({"hidden_size": 24, "n_heads": 5})
    with pytest.raises(InputError, match="pad_token_id is 41"):
        FAMILY.config_from_dict({"vocab_size": 41, "pad_token_id": 41})


def test_positions_start_as_sinusoids():
    fields = {"vocab_size": 9, "dim": 6, "n_heads": 1, "n_layers": 1, "hidden_dim": 4}
    config = FAMILY.config_from_dict({**fields, "sinusoidal_pos_embds": True})
    params = init_params(FAMILY, config, task="base", key=jax.random.key(0))
    embeddings = params["distilbert"]["embeddings"]
    table = np.asarray(embeddings["position_embeddings"]["embedding"])
    angles = 5 / 10000 ** (np.asarray([0, 2, 4]) / 6)
    np.testing.assert_allclose(table[5, ::2], np.sin(angles), rtol=1e-6)
    np.testing.assert_allclose(table[5, 1::2], np.cos(angles), rtol=1e-6)
