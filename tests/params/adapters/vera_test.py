# SPDX-License-Identifier: Apache-2.0
"""VeRA against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jft
from jft import partition
from jft.params.adapters import AdaptedModule, Product, Vera, fold, label_adapted
from jft.paths import flatten
from jft.types import InputError
from tests.params.adapters import table

RNG = np.random.default_rng(0)
PRODUCTS = {"wide": Product("dense", (3, 6)), "narrow": Product("dense", (6, 2))}


class Toy(nn.Module):
    """Two products, none of which has the most inputs and outputs."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, name="narrow")(nn.Dense(6, name="wide")(x))


def arrays(**shapes):
    return {
        name: jnp.asarray(RNG.normal(size=shape), jnp.float32)
        for name, shape in shapes.items()
    }


def test_by_hand_with_slices_of_what_is_shared():
    adapter = Vera(rank=4)
    own = {
        "wide": arrays(vera_lambda_b=(6,), vera_lambda_d=(4,)),
        "narrow": arrays(vera_lambda_b=(2,), vera_lambda_d=(4,)),
        **arrays(vera_A=(6, 4), vera_B=(4, 6)),
    }
    base = {
        "wide": arrays(kernel=(3, 6), bias=(6,)),
        "narrow": arrays(kernel=(6, 2), bias=(2,)),
    }
    params, x = {**base, "adapters": own}, arrays(x=(5, 3))["x"]
    y = AdaptedModule(Toy(), adapter).apply({"params": params}, x)
    expected, folded = np.asarray(x), fold(params, adapter, products=PRODUCTS)
    for name in ("wide", "narrow"):
        num_in, num_out = PRODUCTS[name].shape
        b, d = own[name]["vera_lambda_b"], own[name]["vera_lambda_d"]
        # as the paper has it, for columns: W + diag(b) B diag(d) A
        added = np.diag(b) @ np.asarray(own["vera_B"]).T[:num_out]
        added = added @ np.diag(d) @ np.asarray(own["vera_A"]).T[:, :num_in]
        matrix = np.asarray(base[name]["kernel"]) + added.T
        np.testing.assert_allclose(folded[name]["kernel"], matrix, atol=1e-5)
        expected = expected @ matrix + np.asarray(base[name]["bias"])
    np.testing.assert_allclose(y, expected, atol=1e-4)


def test_start_and_what_is_shared_is_drawn_by_the_key_alone():
    adapter = Vera(rank=50, d_initial=0.2)
    made = adapter.init(PRODUCTS, {}, jax.random.key(0))
    assert not made["wide"]["vera_lambda_b"].any()
    np.testing.assert_allclose(made["wide"]["vera_lambda_d"], 0.2)
    shared = adapter.init_shared(PRODUCTS, jax.random.key(0))
    assert {n: x.shape for n, x in shared.items()} == {
        "vera_A": (6, 50),
        "vera_B": (50, 6),
    }
    # uniform with a variance of 2 over the inputs
    np.testing.assert_allclose(shared["vera_A"].std(), (2 / 6) ** 0.5, rtol=0.1)
    np.testing.assert_allclose(shared["vera_B"].std(), (2 / 50) ** 0.5, rtol=0.1)
    again = adapter.init_shared(dict(reversed(PRODUCTS.items())), jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, shared, again)


def test_only_the_vectors_move_and_what_is_shared_is_there_once():
    base, _ = table.make_model("bert")
    model = jft.adapt(base, Vera(rank=6), key=jax.random.key(0))
    labels = flatten(
        label_adapted(
            model.params,
            partition.label_params(base.params, [(".*", "base")]),
            model.adapter,
        )
    )
    shared = {path for path in labels if path.endswith(("vera_A", "vera_B"))}
    assert shared == {"adapters/vera_A", "adapters/vera_B"}
    assert {labels[path] for path in shared} == {"frozen"}
    assert {model.layer_index(path) for path in shared} == {0}
    moving = {p for p in labels if "vera" in p and labels[p] != "frozen"}
    assert {p.rpartition("/")[2] for p in moving} == {"vera_lambda_b", "vera_lambda_d"}


def test_dropout_is_of_its_path_alone():
    base, batch = table.make_model("bert")
    model = jft.adapt(base, Vera(rank=6, dropout=0.5), key=jax.random.key(0))
    key = jax.random.key(1)
    plain = base.apply_fn(base.params, batch, key=key)
    start = model.apply_fn(model.params, batch, key=key)
    np.testing.assert_allclose(start, plain, atol=1e-5)
    moved = table.trained(model.params)
    dropped = model.apply_fn(moved, batch, key=key)
    assert np.abs(dropped - model.apply_fn(moved, batch, key=None)).max() > 1e-3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rank": 0}, "rank 0 for a VeRA"),
        ({"targets": ("word_embeddings",)}, "embedding, and VeRA is for products"),
        ({"targets": ("querry",)}, "names no module"),
        ({"targets": ("classifier",)}, "moves as a whole"),
    ],
)
def test_settings_that_do_not_fit(settings, said):
    base, _ = table.make_model("bert")
    with pytest.raises(InputError, match=said):
        jft.adapt(base, Vera(**settings), key=jax.random.key(0))
