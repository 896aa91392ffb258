# SPDX-License-Identifier: Apache-2.0
"""New parameters are drawn as transformers draws them; a part equals the whole's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jft.models import get_family
from jft.params import abstract_params, init_params
from jft.paths import flatten

VIT, TASK = get_family("vit"), "image_classification"
CONFIG = VIT.config_from_dict(
    {
        "hidden_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "image_size": 8,
        "patch_size": 2,
        "num_labels": 50,
        "initializer_range": 0.05,
    }
)


@pytest.fixture(scope="module")
def drawn():
    return init_params(VIT, CONFIG, task=TASK, key=jax.random.key(0), dtype=jnp.float32)


def test_values_are_transformers_initialisers(drawn):
    for path, leaf in flatten(drawn).items():
        if path.endswith("scale"):
            assert jnp.all(leaf == 1), path
        elif path.endswith("bias"):
            assert jnp.all(leaf == 0), path
        elif leaf.size > 500:
            assert abs(float(leaf.std()) - 0.05) < 0.005, path
            assert abs(float(leaf.mean())) < 0.005, path


def test_leaves_do_not_share_values(drawn):
    params = flatten(drawn)
    query = params["vit/encoder/layer/0/attention/attention/query/kernel"]
    key = params["vit/encoder/layer/0/attention/attention/key/kernel"]
    assert not jnp.allclose(query, key)


def test_part_of_a_draw_is_the_draw(drawn):
    whole = flatten(drawn)
    part = init_params(
        VIT, CONFIG, task=TASK, key=jax.random.key(0), only=["classifier/.*"]
    )
    part = flatten(part)
    assert whole.keys() == part.keys()
    new = {path for path, leaf in part.items() if isinstance(leaf, jax.Array)}
    assert new == {"classifier/bias", "classifier/kernel"}
    for path in new:
        np.testing.assert_array_equal(part[path], whole[path])


def test_abstract_params_are_the_shapes_of_a_draw(drawn):
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), drawn)
    abstract = abstract_params(VIT, CONFIG, task=TASK)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), abstract) == shapes
    half = abstract_params(VIT, CONFIG, task=TASK, dtype=jnp.bfloat16)
    assert {x.dtype for x in jax.tree.leaves(half)} == {np.dtype(jnp.bfloat16)}
