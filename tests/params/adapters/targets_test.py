# SPDX-License-Identifier: Apache-2.0
"""Targets by PEFT's names and by regexes."""

import pytest

from jft.params.adapters import Product, choose_targets, find_products
from jft.params.adapters.targets import matches
from tests.params.adapters import table

DENSE = Product("dense", (4, 4))
PRODUCTS = {
    "bert/embeddings/word_embeddings": Product("embed", (9, 4)),
    "bert/encoder/layer/0/attention/self/query": DENSE,
    "bert/encoder/layer/0/attention/output/dense": DENSE,
    "bert/encoder/layer/0/output/dense": DENSE,
    "bert/encoder/layer/1/attention/self/query": DENSE,
    "classifier": DENSE,
}


@pytest.mark.parametrize(
    ("target", "count"),
    [
        ("query", 2),
        ("uery", 0),  # part of a name is none
        ("dense", 2),
        ("attention.output.dense", 1),
        ("attention/output/dense", 1),
        ("word_embeddings", 1),
        (r"bert/encoder/layer/0/.*", 3),
        (r"layer/[1-9]/.*query", 1),
        ("classifier", 1),
    ],
)
def test_matches(target, count):
    assert sum(matches(target, path) for path in PRODUCTS) == count


def test_all_linear_is_every_product_but_the_heads():
    chosen = choose_targets(
        ["all-linear"], PRODUCTS, head={"classifier"}, modules=PRODUCTS
    )
    assert list(chosen) == list(PRODUCTS)[1:5]


def test_products_are_what_the_forward_calls():
    """Tied words score the outputs; a table that is added as it is, is none."""
    model, _ = table.make_model("bert", "masked_lm")
    config = model.family.config_from_dict(model.config)
    found = find_products(model.family, config, "masked_lm")
    words = found["bert/embeddings/word_embeddings"]
    assert words == Product("embed", (41, 24), scores=True)
    assert not found["bert/embeddings/position_embeddings"].scores
    assert found["bert/encoder/layer/1/intermediate/dense"].shape == (24, 40)
    model, _ = table.make_model("vit")
    config = model.family.config_from_dict(model.config)
    found = find_products(model.family, config, model.task)
    patches = "vit/embeddings/patch_embeddings/projection"
    assert found[patches] == Product("conv", (4, 4, 3, 16))
    chosen = choose_targets(["all-linear"], found, head=set(), modules=found)
    assert patches not in chosen
