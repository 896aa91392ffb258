# SPDX-License-Identifier: Apache-2.0
"""Bottlenecks against numpy, and where they stand."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jft
from jft.models import MODELS
from jft.params.adapters import AdaptedModule, Bottleneck, adapters_of, find_products
from jft.types import InputError
from tests.models.table import TABLE
from tests.params.adapters import table

RNG = np.random.default_rng(0)

# model_type -> what ends a block's attention, and its MLP
ENDS = {
    **{name: row.block_ends for name, row in TABLE.items()},
    "vit": (r"attention/output/dense", r"\d/output/dense"),
}


def test_every_transformer_is_in_the_table():
    assert ENDS.keys() == MODELS.keys()


@pytest.mark.parametrize("model_type", ENDS)
def test_stands_where_a_sub_layer_ends(model_type):
    model, _ = table.make_model(model_type)
    config = model.family.config_from_dict(model.config)
    products = find_products(model.family, config, model.task)
    houlsby, pfeiffer = (
        Bottleneck(placement=name).choose(products, head=set(), modules=set())
        for name in ("houlsby", "pfeiffer")
    )
    of_attention, of_mlp = (re.compile(f".*/{end}") for end in ENDS[model_type])
    assert set(pfeiffer) == {path for path in products if of_mlp.fullmatch(path)}
    attention = {path for path in products if of_attention.fullmatch(path)}
    assert set(houlsby) == set(pfeiffer) | attention
    assert len(pfeiffer) == model.num_layers
    reading = [path for path in pfeiffer if "decoder/" in path]  # an encoder too
    assert len(attention) == model.num_layers + len(reading)
    assert len({product.shape[1] for product in houlsby.values()}) == 1


class Toy(nn.Module):
    """One product."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(6, name="out")(x)


def test_by_hand():
    def array(*shape):
        return jnp.asarray(RNG.normal(size=shape), jnp.float32)

    own = {
        "bottleneck_down": array(6, 3),
        "bottleneck_down_bias": array(3),
        "bottleneck_up": array(3, 6),
        "bottleneck_up_bias": array(6),
    }
    base, x = {"kernel": array(5, 6), "bias": array(6)}, array(2, 4, 5)
    adapter = Bottleneck(reduction_factor=2)
    params = {"out": base, "adapters": {"out": own}}
    y = AdaptedModule(Toy(), adapter).apply({"params": params}, x)
    down, down_bias, up, up_bias = (np.asarray(leaf) for leaf in own.values())
    h = np.asarray(x) @ np.asarray(base["kernel"]) + np.asarray(base["bias"])
    expected = h + np.maximum(h @ down + down_bias, 0) @ up + up_bias
    np.testing.assert_allclose(y, expected, atol=1e-4)


def test_width_and_start():
    base, _ = table.make_model("bert")  # 24 wide
    model = jft.adapt(base, Bottleneck(reduction_factor=7), key=jax.random.key(0))
    for leaves in adapters_of(model.params).values():
        assert leaves["bottleneck_down"].shape == (24, 3)
        assert float(jnp.abs(leaves["bottleneck_down"]).max()) <= 24**-0.5
        rest = {name for name in leaves if name != "bottleneck_down"}
        assert len(rest) == 3
        assert not any(leaves[name].any() for name in rest)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"reduction_factor": 25}, "has 24 outputs, so nothing would be left"),
        ({"reduction_factor": 0}, "reduction_factor is 0; expected 1 or more"),
        ({"nonlinearity": "relux"}, "nonlinearity is 'relux'; expected one of"),
    ],
)
def test_settings_that_do_not_fit(settings, said):
    base, _ = table.make_model("bert")
    with pytest.raises(InputError, match=said):
        jft.adapt(base, Bottleneck(**settings), key=jax.random.key(0))


def test_a_model_without_blocks_has_no_place():
    base, _ = table.make_model("bert")
    family = dataclasses.replace(base.family, row_parallel="(?!)")
    base = base._replace(family=family)
    with pytest.raises(InputError, match="no blocks of attention and an MLP"):
        jft.adapt(base, Bottleneck(), key=jax.random.key(0))
