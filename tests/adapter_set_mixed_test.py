# SPDX-License-Identifier: Apache-2.0
"""A batch that mixes adapters: each row as it is answered alone."""

import sys

import jax
import numpy as np
import pytest

import jft
from jft import evals
from jft.params import quantised
from jft.params.adapters import Lora, NormTuning
from jft.params.quantised import is_quantised
from jft.types import InputError
from tests.adapter_sets import METHODS, adapted, answers, every_method
from tests.params.adapters import table

PROGRAM = sys.modules["jft.evals.generate"]._run


@pytest.fixture(scope="module")
def bert():
    return table.make_model("bert", "sequence_classification")


@pytest.fixture(scope="module")
def every(bert):
    return every_method(bert[0])


def row(batch, i):
    return {name: x[i : i + 1] for name, x in batch.items()}


def test_each_row_is_answered_by_its_own(bert, every):
    """All methods and the base in one batch, as each row alone."""
    base, batch = bert
    names = [*METHODS, None, "wide"]
    mixed = every.mixed()
    rows = {name: np.resize(x, (len(names), *x.shape[1:])) for name, x in batch.items()}
    got = answers(mixed, {**rows, "adapter_ids": every.ids(names)})
    for i, name in enumerate(names):
        alone = base if name is None else every.use(name)
        expected = answers(alone, row(rows, i))
        np.testing.assert_allclose(got[i : i + 1], expected, atol=1e-5, err_msg=name)
        assert (
            name is None or np.abs(expected - answers(base, row(rows, i))).max() > 0.1
        )


@pytest.mark.parametrize("model_type", ["gpt2", "t5", "modernbert", "vit"])
def test_rows_of_distinct_families(model_type):
    base, batch = table.make_model(model_type)
    models = {
        "lora": adapted(base, Lora(rank=2, bias="all"), 1),
        "dora": adapted(base, Lora(rank=3, dora=True), 2),
    }
    several = jft.gather(base, models)
    names = ["dora", None, "lora"]
    got = answers(several.mixed(), {**batch, "adapter_ids": several.ids(names)})
    for i, name in enumerate(names):
        alone = answers(base if name is None else several.use(name), batch)[i]
        np.testing.assert_allclose(got[i], alone, atol=3e-5)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_rows_over_a_quantised_base(bert, kind):
    """DoRA reads the lengths of a matrix that is there as codes alone."""
    base, batch = jft.quantize(bert[0], kind), bert[1]
    models = {name: adapted(base, METHODS[name], 1) for name in ("lengths", "biases")}
    several = jft.gather(base, models)
    names = ["biases", None, "lengths"]
    got = answers(several.mixed(), {**batch, "adapter_ids": several.ids(names)})
    for i, name in enumerate(names):
        alone = answers(base if name is None else several.use(name), batch)[i]
        np.testing.assert_allclose(got[i], alone, atol=3e-5)


def test_only_lengths_and_what_was_trained_read_a_matrix(bert, monkeypatch):
    """Codes stay codes for the other methods, whatever else is in the mixture."""
    base, read = jft.quantize(bert[0], "nf4"), []
    mixed = sys.modules["jft.params.adapters.mixed"]

    def in_full(leaf, num_in, dtype):
        read.extend([leaf] if is_quantised(leaf) else [])
        return quantised.in_full(leaf, num_in, dtype)

    monkeypatch.setattr(mixed, "in_full", in_full)
    names = ("plain", "words", "factors", "biases")
    models = {name: adapted(base, METHODS[name], 1) for name in names}
    jft.gather(base, models).mixed()
    assert not read
    models["lengths"] = adapted(base, METHODS["lengths"], 1)
    jft.gather(base, models).mixed()
    assert len(read) == 2 * 2  # key and attention/output/dense of two layers


def test_ids_change_without_a_compilation_and_a_wrong_one_answers_nan(bert, every):
    _, batch = bert
    mixed = every.mixed()
    forward = jax.jit(mixed.apply_fn)

    def ask(ids):
        batch_of = {**batch, "adapter_ids": np.asarray(ids, np.int32)}
        return np.asarray(forward(mixed.params, batch_of, key=None))

    one, other = ask([0, 1, -1]), ask([1, 1, 0])
    assert forward._cache_size() == 1
    np.testing.assert_array_equal(one[1], other[1])
    assert np.abs(one[0] - other[0]).max() > 0.1
    wrong = ask([0, len(METHODS), -2])
    np.testing.assert_array_equal(wrong[0], one[0])
    assert np.isnan(wrong[1:]).all()


def test_the_products_of_the_base_run_once():
    """Ten adapters cost what two do, and little more than one; off the program."""
    base, batch = table.make_model("bert", "sequence_classification")
    models = {str(i): adapted(base, Lora(rank=4), i) for i in range(10)}
    rows = {name: np.resize(x, (12, *x.shape[1:])) for name, x in batch.items()}
    ids = {"adapter_ids": np.arange(12, dtype=np.int32) % 3 - 1}

    def flops(model, rows):
        lowered = jax.jit(model.apply_fn).lower(model.params, rows, key=None)
        return lowered.compile().cost_analysis()["flops"]

    ten = flops(jft.gather(base, models).mixed(), rows | ids)
    few = {name: models[name] for name in "01"}
    two = flops(jft.gather(base, few).mixed(), rows | ids)
    assert ten == two
    assert ten < 1.15 * flops(models["0"], rows)


def test_heads_of_different_sizes(bert):
    base, batch = bert
    classes = ["x", "y"]
    narrow = base._replace(
        params={
            **base.params,
            "classifier": {
                "kernel": base.params["classifier"]["kernel"][:, :2],
                "bias": base.params["classifier"]["bias"][:2],
            },
        },
        class_names=("x", "y"),
        config=jft.with_classes(base.config, classes),
    )
    model_config = base.family.config_from_dict(narrow.config)
    narrow = narrow._replace(module=base.family.make_module(model_config, base.task))
    narrow = narrow._replace(apply_fn=jft.models.make_apply_fn(narrow.module))
    wide = base._replace(class_names=tuple("abcd"))
    several = jft.gather(
        narrow,
        {
            "two": adapted(narrow, METHODS["plain"], 1),
            "four": adapted(wide, METHODS["words"], 2),
        },
    )
    mixed = several.mixed()
    assert mixed.class_names == ()
    names = ["four", "two", None]
    got = answers(mixed, {**batch, "adapter_ids": several.ids(names)})
    np.testing.assert_allclose(
        got[0], answers(several.use("four"), batch)[0], atol=1e-5
    )
    np.testing.assert_allclose(
        got[1, :2], answers(several.use("two"), batch)[1], atol=1e-5
    )
    np.testing.assert_allclose(got[2, :2], answers(narrow, batch)[2], atol=1e-5)
    assert np.isneginf(got[1:, 2:]).all()
    with pytest.raises(InputError, match=r"different classes.*\['a', 'b', 'c', 'd'\]"):
        several.weighted_sum({"two": 1.0, "four": 1.0})


def test_what_cannot_be_mixed(bert, every):
    base, _ = bert
    norms = jft.gather(base, {"n": adapted(base, NormTuning(), 1)})
    with pytest.raises(InputError, match=r"'n' is a NormTuning .*'BitFit', 'Ia3', 'Lo"):
        norms.mixed()
    words = Lora(rank=2, targets=("query",), also_train=(".*/word_embeddings/.*",))
    with pytest.raises(InputError, match="'w' has trained bert/embeddings/word_emb"):
        jft.gather(base, {"w": adapted(base, words, 1)}).mixed()
    deberta, _ = table.make_model("deberta-v2")
    shared = {"d": adapted(deberta, Lora(rank=2, targets=("query_proj",)), 1)}
    with pytest.raises(InputError, match="query_proj is adapted and does not answer"):
        jft.gather(deberta, shared).mixed()
    mixed = every.mixed()
    with pytest.raises(InputError, match=r"jft\.gather them over their base"):
        jft.adapt(base, mixed.adapter, key=jax.random.key(0))
    for ask in (jft.fold, jft.check_foldable, lambda m: jft.save_adapter("no", m)):
        with pytest.raises(InputError, match="answer different rows"):
            ask(mixed)
    with pytest.raises(InputError, match="has Mixed"):
        jft.gather(base, {"m": mixed})


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (None, "the batch has no adapter_ids, by which"),
        (np.zeros(2, np.int32), r"adapter_ids is int32\[2\].* \[2, 3\] rows"),
        (np.zeros((3, 1), np.int32), r"int32\[3, 1\]"),
        (np.zeros(3, np.float32), r"float32\[3\]"),
    ],
)
def test_ids_that_fit_no_batch(ids, said, bert, every):
    _, batch = bert
    batch = batch if ids is None else {**batch, "adapter_ids": ids}
    mixed = every.mixed()
    with pytest.raises(InputError, match=said):
        jax.eval_shape(lambda p: mixed.apply_fn(p, batch, key=None), mixed.params)


@pytest.mark.parametrize("method", ["plain", "biases"])
def test_a_model_of_one_adapter_refuses_ids(method, bert, every):
    batch = {**bert[1], "adapter_ids": np.zeros(3, np.int32)}
    model = every.use(method)
    with pytest.raises(InputError, match=r"one (Lora|BitFit) adapter for all rows"):
        jax.eval_shape(lambda p: model.apply_fn(p, batch, key=None), model.params)


@pytest.mark.parametrize(
    ("model_type", "options"),
    [("gpt2", {}), ("t5", {"num_beams": 2})],
)
def test_each_text_is_written_by_its_own(model_type, options):
    """With the cache, and beams that repeat the rows; ids compile nothing new."""
    task = "seq2seq_lm" if model_type == "t5" else "causal_lm"
    base, batch = table.make_model(model_type, task)
    adapter = Lora(rank=2)
    models = {n: adapted(base, adapter, i) for i, n in enumerate("ab")}
    several = jft.gather(base, models)
    prompt = {"input_ids": np.asarray(batch["input_ids"])[[0, 0, 0], :3]}
    prompt["attention_mask"] = np.ones_like(prompt["input_ids"])
    settings = {"max_new_tokens": 5, "min_new_tokens": 5, "eos_token_id": 1, **options}

    def write(model, **fields):
        return evals.generate(model, {**prompt, **fields}, **settings).tokens

    mixed = several.mixed()
    alone = {n: write(model)[0] for n, model in several.models.items()}
    alone[None] = write(base)[0]
    assert len({tuple(x) for x in alone.values()}) == 3
    before = None
    for names in (["b", None, "a"], ["a", "b", None]):
        got = write(mixed, adapter_ids=several.ids(names))
        np.testing.assert_array_equal(got, [alone[n] for n in names])
        now = PROGRAM._cache_size()
        assert before in (None, now)
        before = now


def test_texts_by_an_adapter_that_is_not_there():
    base, batch = table.make_model("gpt2", "causal_lm")
    mixed = jft.gather(base, {"a": adapted(base, Lora(rank=2), 1)}).mixed()
    prompt = {"input_ids": np.asarray(batch["input_ids"])}
    for ids in ([0, 1, 0], [0, -2, 0], [0, 0], [[0], [0], [0]], [0.0, 0.0, 0.0]):
        with pytest.raises(
            InputError, match=r"expected 3 whole numbers.*\['a'\] or -1"
        ):
            evals.generate(mixed, {**prompt, "adapter_ids": np.asarray(ids)})
    with pytest.raises(InputError, match="the batch has no adapter_ids"):
        evals.generate(mixed, prompt, max_new_tokens=4)
