# SPDX-License-Identifier: Apache-2.0
"""LoRA against numpy, and where it stands in a model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jft
from jft.models.dropout import drop, random_words
from jft.models.layers import Embed
from jft.models.remat import with_remat
from jft.params.adapters import AdaptedModule, Lora, Product, adapters_of, fold
from jft.paths import flatten
from jft.types import InputError
from tests.params.adapters import table

RNG = np.random.default_rng(0)


class Toy(nn.Module):
    """One look-up and one product."""

    @nn.compact
    def __call__(self, ids):
        x = Embed(7, 5, nn.initializers.normal(1.0), name="words")(ids)
        return nn.Dense(6, name="out")(x)


PRODUCTS = {"words": Product("embed", (7, 5)), "out": Product("dense", (5, 6))}
IDS = jnp.asarray([[0, 3, 6], [2, 2, 1]])


def arrays(**shapes):
    return {
        name: jnp.asarray(RNG.normal(size=shape), jnp.float32)
        for name, shape in shapes.items()
    }


def toy(adapter, **own):
    base = {
        "words": arrays(embedding=(7, 5)),
        "out": arrays(kernel=(5, 6), bias=(6,)),
    }
    params = {**base, "adapters": own}
    module = AdaptedModule(Toy(), adapter)
    plain = jax.tree.map(np.asarray, base)
    out = plain["out"]
    return module, params, plain["words"]["embedding"], out["kernel"], out["bias"]


def test_products_and_embeddings_by_hand():
    adapter = Lora(rank=2, alpha=6.0, alpha_pattern=(("words", 1.0),), rslora=True)
    own = {
        "words": arrays(lora_embedding_A=(7, 2), lora_embedding_B=(2, 5)),
        "out": arrays(lora_A=(5, 2), lora_B=(2, 6)),
    }
    module, params, table_, kernel, bias = toy(adapter, **own)
    y = module.apply({"params": params}, IDS)
    of_words, of_out = (
        jax.tree.map(lambda x: np.asarray(x, np.float64), own[n])
        for n in ("words", "out")
    )
    rows = table_ + of_words["lora_embedding_A"] @ of_words["lora_embedding_B"] / 2**0.5
    matrix = kernel + 6.0 / 2**0.5 * of_out["lora_A"] @ of_out["lora_B"]
    np.testing.assert_allclose(y, rows[IDS] @ matrix + bias, atol=1e-4)
    folded = fold(params, adapter, products=PRODUCTS)
    np.testing.assert_allclose(folded["words"]["embedding"], rows, atol=1e-5)
    np.testing.assert_allclose(folded["out"]["kernel"], matrix, atol=1e-5)


def test_dora_by_hand_and_its_lengths_are_constant_in_the_gradient():
    adapter = Lora(rank=2, alpha=4.0, dora=True)
    own = {"out": arrays(lora_A=(5, 2), lora_B=(2, 6), lora_magnitude_vector=(6,))}
    module, params, table_, kernel, bias = toy(adapter, **own)
    x = table_[np.asarray(IDS)]
    leaves = jax.tree.map(np.asarray, own["out"])
    wanted = leaves["lora_magnitude_vector"]

    def by_hand(b, lengths=None):
        matrix = kernel + 2.0 * leaves["lora_A"] @ b
        lengths = jnp.linalg.norm(matrix, axis=0) if lengths is None else lengths
        return jnp.asarray(x).reshape(-1, 5) @ (matrix * (wanted / lengths)[None])

    y = module.apply({"params": params}, IDS)
    expected = np.asarray(by_hand(leaves["lora_B"])).reshape(2, 3, 6) + bias
    np.testing.assert_allclose(y, expected, atol=1e-4)

    weights = jnp.asarray(RNG.normal(size=(2, 3, 6)), jnp.float32)

    def loss(b):
        leaf = {**params["adapters"]["out"], "lora_B": b}
        changed = {**params, "adapters": {"out": leaf}}
        return (module.apply({"params": changed}, IDS) * weights).sum()

    lengths = np.linalg.norm(kernel + 2.0 * leaves["lora_A"] @ leaves["lora_B"], axis=0)
    grad = jax.grad(lambda b: (by_hand(b, lengths) * weights.reshape(-1, 6)).sum())
    b = own["out"]["lora_B"]
    np.testing.assert_allclose(jax.grad(loss)(b), grad(b), atol=1e-3)


def test_dropout_is_of_the_low_rank_path_alone():
    adapter = Lora(rank=2, alpha=2.0, dropout=0.5)
    own = {"out": arrays(lora_A=(5, 2), lora_B=(2, 6))}
    module, params, table_, kernel, bias = toy(adapter, **own)
    key = jax.random.key(3)
    y = module.apply({"params": params}, IDS, rngs={"dropout": key})
    x = jnp.asarray(table_)[IDS]
    words = []

    def watch(run, args, kwargs, context):
        if context.module.name == "out" and context.method_name == "__call__":
            words.append(random_words(context.module.make_rng("dropout")))
        return run(*args, **kwargs)

    with nn.intercept_methods(watch):
        module.module.apply(
            {"params": {k: params[k] for k in ("words", "out")}},
            IDS,
            rngs={"dropout": key},
        )
    low = drop(x, words[0], rate=0.5) @ own["out"]["lora_A"] @ own["out"]["lora_B"]
    np.testing.assert_allclose(y, x @ kernel + bias[None, None] + low, atol=1e-4)
    assert not np.allclose(y, module.apply({"params": params}, IDS))


def test_start_is_torchs_and_each_module_has_its_own():
    base = {
        f"{name}/kernel": jax.ShapeDtypeStruct((64, 32), jnp.float32) for name in "ab"
    }
    products = {name: Product("dense", (64, 32)) for name in "ab"}
    made = Lora(rank=4).init(products, base, jax.random.key(0))
    a, b = made["a"]["lora_A"], made["b"]["lora_A"]
    assert float(jnp.abs(a).max()) <= 64**-0.5
    np.testing.assert_allclose(float(a.std()), (64 * 3) ** -0.5, rtol=0.1)
    assert not np.array_equal(a, b)
    assert not made["a"]["lora_B"].any()
    again = Lora(rank=4).init({"b": products["b"]}, base, jax.random.key(0))
    np.testing.assert_array_equal(again["b"]["lora_A"], b)


def test_pissa_starts_with_the_leading_part():
    kernel = RNG.normal(size=(8, 6)).astype(np.float32)
    adapter = Lora(rank=2, alpha=4.0, init_method="pissa")
    made = adapter.init(
        {"m": Product("dense", (8, 6))}, {"m": {"kernel": kernel}}, jax.random.key(0)
    )
    leading = 2.0 * np.asarray(made["m"]["lora_A"] @ made["m"]["lora_B"])
    u, s, v = np.linalg.svd(kernel)
    np.testing.assert_allclose(leading, u[:, :2] * s[:2] @ v[:2], atol=1e-5)


def test_rematerialized_blocks_and_stages_answer_alike():
    base, batch = table.make_model("bert")
    adapter = Lora(rank=2, dropout=0.5, targets=("query", "output.dense"))
    model = jft.adapt(base, adapter, key=jax.random.key(0))
    params, key = table.trained(model.params), jax.random.key(5)
    rematted_fn = with_remat(model.apply_fn, [(".*", "nothing")])

    @jax.jit
    def three_ways(params):
        part = model.prefix_fn(params, batch, stop=2, key=key)
        return (
            model.apply_fn(params, batch, key=key),
            rematted_fn(params, batch, key=key),
            model.apply_fn(params, part, key=key),
        )

    whole, rematted, in_stages = three_ways(params)
    np.testing.assert_allclose(rematted, whole, atol=1e-5)
    np.testing.assert_allclose(in_stages, whole, atol=1e-5)


def test_half_precision_base_keeps_wide_adapters():
    base, batch = table.make_model("bert")
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), base.params)
    model = jft.adapt(base._replace(params=half), Lora(rank=2), key=jax.random.key(0))
    own = {leaf.dtype for leaf in jax.tree.leaves(model.params["adapters"])}
    assert own == {jnp.dtype(jnp.float32)}
    outputs = jax.eval_shape(
        lambda params: model.apply_fn(params, batch, key=None), model.params
    )
    assert outputs.dtype == jnp.bfloat16
    folded = jax.tree.leaves(jft.fold(model).params)
    assert {leaf.dtype for leaf in folded} == {jnp.dtype(jnp.bfloat16)}


def test_biases_that_move():
    base, _ = table.make_model("bert")
    for bias, expected in (("none", 0), ("lora_only", 2), ("all", None)):
        lora = Lora(rank=2, targets=("query",), bias=bias)
        model = jft.adapt(base, lora, key=jax.random.key(0))
        adapted = adapters_of(model.params)
        moving = [p for p in flatten(base.params) if lora.moves(p, adapted, ())]
        every = [p for p in flatten(base.params) if p.endswith("/bias")]
        assert len(moving) == (len(every) if expected is None else expected)


def test_a_pattern_is_a_dict_or_pairs_whose_first_wins():
    base, _ = table.make_model("bert")

    def shapes(pattern):
        made = jft.adapt(base, Lora(rank=2, rank_pattern=pattern), key=key)
        return jax.tree.map(jnp.shape, made.params["adapters"])

    key = jax.random.key(0)
    alone = shapes({"query": 3})
    assert alone != shapes({}) == shapes(())
    assert alone == shapes((("query", 3),)) == shapes((("query", 3), (".*query", 1)))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rank": 0}, r"rank 0 .*expected 1 to 24"),
        ({"rank": 25}, r"rank 25 .*expected 1 to 24"),
        ({"targets": ("querry",)}, "names no module"),
        ({"targets": ("LayerNorm",)}, "no product with a matrix"),
        ({"targets": ("query(",)}, "no regular expression"),
        ({"targets": ()}, "nothing is adapted"),
        ({"rank_pattern": (("querry", 2),)}, "none of the adapted modules"),
        ({"alpha_pattern": {"querry": 2.0}}, "none of the adapted modules"),
        (
            {"rank_pattern": {"query": 2, ".*/0/.*": 4}},
            r"\['query', '\.\*/0/\.\*'\] all name bert/encoder/layer/0/",
        ),
        ({"targets": ("word_embeddings",), "dora": True}, "for products alone"),
        ({"targets": ("word_embeddings",), "init_method": "pissa"}, "pissa is for"),
    ],
)
def test_settings_that_do_not_fit(settings, said):
    base, _ = table.make_model("bert")
    with pytest.raises(InputError, match=said):
        jft.adapt(base, Lora(**settings), key=jax.random.key(0))


def test_tied_words_are_not_folded():
    base, _ = table.make_model("bert", "masked_lm")
    lora = Lora(rank=2, targets=("word_embeddings",))
    model = jft.adapt(base, lora, key=jax.random.key(0))
    with pytest.raises(InputError, match="cannot be folded"):
        jft.fold(model)
    with pytest.raises(InputError, match="cannot be folded"):
        jft.check_foldable(model)


class _Outside(Lora):
    """A method that no base could hold."""

    foldable = False


def test_what_no_base_could_hold_is_not_folded():
    base, _ = table.make_model("bert")
    model = jft.adapt(base, _Outside(rank=2), key=jax.random.key(0))
    for refuse in (jft.fold, jft.check_foldable):
        with pytest.raises(InputError, match="_Outside adds what no parameter"):
            refuse(model)
