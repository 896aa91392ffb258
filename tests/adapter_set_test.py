# SPDX-License-Identifier: Apache-2.0
"""Several adapters over one base: switched, summed, and what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jft
from jft import optim, partition, train
from jft.params import adapters
from jft.params.adapters import BitFit, Ia3, Lora, NormTuning
from jft.paths import flatten, map_with_path
from jft.types import InputError
from tests.adapter_sets import METHODS, adapted, alike, answers, every_method
from tests.params.adapters import table


def copied(model):
    """The same numbers in arrays of their own."""
    return model._replace(params=jax.tree.map(lambda x: x + 0, model.params))


@pytest.fixture(scope="module")
def bert():
    return table.make_model("bert", "sequence_classification")


@pytest.fixture(scope="module")
def every(bert):
    return every_method(bert[0])


# --- gathered -------------------------------------------------------------------------
def test_the_base_is_held_once(bert):
    base, batch = bert
    apart = {
        name: copied(adapted(base, METHODS["plain"], i)) for i, name in enumerate("ab")
    }
    several = jft.gather(base, apart)
    before = flatten(base.params)
    for name in "ab":
        for path, leaf in flatten(several.use(name).params).items():
            own = path.startswith(("adapters/", "classifier/"))
            assert (leaf is before.get(path)) == (not own)
        np.testing.assert_array_equal(
            answers(several.use(name), batch), answers(apart[name], batch)
        )

    def held(trees):
        return sum({id(x): x.nbytes for x in jax.tree.leaves(trees)}.values())

    more = held([several.base.params, *(m.params for m in several.models.values())])
    own = 2 * 2 * 2 * (2 * 24 * 2) + 2 * (
        24 * 4 + 4
    )  # factors of 2 x 2 products, heads
    assert more - held(base.params) == 4 * own


def test_switching_compiles_nothing(bert):
    base, batch = bert
    several = jft.gather(
        base, {n: adapted(base, METHODS["plain"], i) for i, n in enumerate("ab")}
    )
    assert several.use("a").apply_fn is several.use("b").apply_fn
    forward = jax.jit(several.use("a").apply_fn)
    one = forward(several.use("a").params, batch, key=None)
    other = forward(several.use("b").params, batch, key=None)
    assert forward._cache_size() == 1
    assert float(jnp.abs(one - other).max()) > 0.1


def test_one_is_trained_and_put_back(bert):
    base, batch = bert
    several = jft.gather(
        base, {n: adapted(base, METHODS["plain"], i) for i, n in enumerate("ab")}
    )
    model = several.use("a")
    labels = adapters.label_adapted(
        model.params,
        partition.label_params(base.params, [(".*", "base")]),
        model.adapter,
    )
    tx = optim.make_optimizer(labels, learning_rate=0.05)
    state = train.init_state(model.params, labels, tx=tx, key=jax.random.key(0))

    def loss(outputs, batch):
        return jnp.square(outputs - 1).sum(), jnp.asarray(float(outputs.size))

    step = train.make_train_step(model.apply_fn, loss, tx, labels)
    state, _ = step(state, batch)
    trained = model._replace(params=state.params)
    again = jft.gather(several.base, {**several.models, "a": trained})
    np.testing.assert_array_equal(
        answers(again.use("a"), batch), answers(trained, batch)
    )
    assert np.abs(answers(again.use("a"), batch) - answers(model, batch)).max() > 1e-3
    assert (
        again.use("b").params["classifier"]["bias"]
        is several.use("b").params["classifier"]["bias"]
    )
    for path, leaf in flatten(adapters.without_adapters(again.use("a").params)).items():
        assert path.startswith("classifier/") or leaf is flatten(base.params)[path]


# --- added up -------------------------------------------------------------------------
SUMS = {
    "products": ("plain", "wide", "singular"),
    "words": ("words", "plain"),
    "one": ("wide",),
}


@pytest.mark.parametrize("names", [*SUMS.values(), ("f", "g"), ("n", "m"), ("b", "c")])
def test_folded_sum_is_the_sum_of_the_folded_changes(names, bert, every):
    base, batch = bert
    more = {
        "f": Ia3(
            targets=("key", "value", "output/dense"), feedforward=("output/dense",)
        ),
        "g": Ia3(targets=("key",)),
        "n": NormTuning(),
        "m": NormTuning(),
        "b": BitFit(),
        "c": BitFit(),
    }
    several = every
    if names[0] in more:
        several = jft.gather(
            base, {x: adapted(base, more[x], i) for i, x in enumerate(names)}
        )
    weights = dict(zip(names, (0.7, -0.4, 1.1), strict=False))
    summed = several.weighted_sum(weights)
    flat = flatten(base.params)
    folded = {name: flatten(jft.fold(several.use(name)).params) for name in names}
    result = flatten(jft.fold(summed).params)
    total = sum(weights.values())
    for path, leaf in result.items():
        if path.startswith("classifier/"):
            expected = sum(w * folded[n][path] for n, w in weights.items()) / total
        else:
            changes = (w * (folded[n][path] - flat[path]) for n, w in weights.items())
            expected = flat[path] + sum(changes)
        np.testing.assert_allclose(leaf, expected, atol=2e-5, err_msg=path)
    changed = [p for p, x in result.items() if np.abs(x - flat[p]).max() > 0.05]
    assert len(changed) > 2
    # beside the base it answers as within it
    np.testing.assert_allclose(
        answers(summed, batch), answers(jft.fold(summed), batch), atol=2e-5
    )


def test_a_sum_is_saved_and_read_again(every, tmp_path):
    summed = every.weighted_sum({"plain": 0.5, "words": 0.5})
    jft.save_adapter(tmp_path, summed)
    again = jft.load_adapter(tmp_path, every.base)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["modules_to_save"] == ["classifier"]  # biases move with their modules
    assert config["bias"] == "lora_only"
    one, other = flatten(summed.params), flatten(again.params)
    assert one.keys() == other.keys()
    for path in one:
        np.testing.assert_array_equal(one[path], other[path], err_msg=path)


# --- refused --------------------------------------------------------------------------
def test_names_that_are_not_there_and_names_that_are(bert, every):
    base, _ = bert
    several = alike(base)
    for ask in (
        lambda: several.use("c"),
        lambda: several.ids(["a", None, "c"]),
        lambda: several.weighted_sum({"a": 1.0, "c": 0.5}),
    ):
        with pytest.raises(InputError, match=r"no adapter 'c'; known are \['a', 'b'\]"):
            ask()
    with pytest.raises(InputError, match="is an adapter 'b' already"):
        several.add("b", several.use("a"))
    assert sorted(several.add("c", several.use("a")).models) == ["a", "b", "c"]
    assert several.ids(["b", None, "a"]).tolist() == [1, -1, 0]
    with pytest.raises(InputError, match="no adapters were given"):
        jft.gather(base, {})


def test_an_adapter_of_another_base_is_refused(bert):
    base, _ = bert
    model = adapted(base, METHODS["plain"], 1)
    layer = "bert/encoder/layer/1/output/dense/kernel"
    other = map_with_path(lambda p, x: x * 1.01 if p == layer else x, model.params)
    with pytest.raises(InputError, match=f"'a' has another base: {layer}.*numbers"):
        jft.gather(base, {"a": model._replace(params=other)})
    half = model._replace(
        params=map_with_path(lambda p, x: x[:5] if p == layer else x, model.params)
    )
    with pytest.raises(InputError, match=f"{layer} is .5, 24. there and .* here"):
        jft.gather(base, {"a": half})
    gpt2, _ = table.make_model("gpt2", "sequence_classification")
    with pytest.raises(InputError, match="a gpt2 for 'sequence_classification'"):
        jft.gather(base, {"a": adapted(gpt2, Lora(rank=2), 1)})
    with pytest.raises(InputError, match="the model 'a' has no adapter"):
        jft.gather(base, {"a": base})
    with pytest.raises(InputError, match="gather over the model without it"):
        jft.gather(model, {"a": model})


def test_a_base_in_half_precision_is_the_same_base(bert):
    base, _ = bert
    half = base._replace(
        params=jax.tree.map(lambda x: x.astype(jnp.bfloat16), base.params)
    )
    model = adapted(half, METHODS["plain"], 1)
    several = jft.gather(base, {"a": model})
    kernel = several.use("a").params["bert"]["pooler"]["dense"]["kernel"]
    assert kernel is base.params["bert"]["pooler"]["dense"]["kernel"]
    assert several.use("a").params["classifier"]["kernel"].dtype == jnp.float32


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({}, "weights is empty"),
        ({"plain": float("nan")}, "finite"),
        ({"plain": 1.0, "factors": 1.0}, "'factors': 'Ia3'"),
        ({"plain": 1.0, "lengths": 1.0}, r"\['lengths'\] learn the lengths .*DoRA"),
        ({"plain": 1.0, "words": -1.0}, "weights sum to 0, and of classifier/bias"),
    ],
)
def test_what_has_no_sum(weights, said, every):
    with pytest.raises(InputError, match=said):
        every.weighted_sum(weights)


def test_factors_of_one_module_on_both_sides_have_no_sum(bert):
    base, _ = bert
    inputs = Ia3(targets=("key",), feedforward=("key",))
    models = {"i": inputs, "o": Ia3(targets=("key",))}
    several = jft.gather(base, {n: adapted(base, x, 1) for n, x in models.items()})
    with pytest.raises(InputError, match=r"inputs of .*/key and another its outputs"):
        several.weighted_sum({"i": 1.0, "o": 1.0})


# --- texts ----------------------------------------------------------------------------
