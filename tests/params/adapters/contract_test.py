# SPDX-License-Identifier: Apache-2.0
"""What holds for every method on every family."""

import collections
import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jft
from jft import optim, partition, train
from jft.evals import generate
from jft.models import MODELS
from jft.params import adapters
from jft.params.adapters import Lora
from jft.paths import flatten
from jft.types import FROZEN, InputError
from tests.params.adapters import table

# families whose steps are run with every method; the products of all others are alike
STEPPED = ("bert", "gpt2", "llama", "t5", "vit")


# of methods that do the same to a product, one stands for all elsewhere
CHOSEN = ("dora", "houlsby", "norm", "prompt", "prefix", "lora, a convolution")


def methods_of(model_type, whole=STEPPED):
    """All methods of some families; of the others those that differ by family."""
    methods = table.methods_of(model_type)
    if model_type in whole:
        return methods
    return {name: methods[name] for name in CHOSEN if name in methods}


def test_table_is_complete():
    methods = {type(row.adapter) for row in table.METHODS.values()}
    assert methods == set(adapters.ADAPTERS.values())
    assert set(table.FAMILIES) == set(MODELS)


@pytest.fixture(scope="module")
def model_of():
    made = {}

    def get(model_type):
        if model_type not in made:
            made[model_type] = table.make_model(model_type)
        return made[model_type]

    return get


@pytest.mark.parametrize("model_type", table.FAMILIES)
def test_reaches_every_target_and_leaves_the_rest(model_type, model_of):
    """By tracing alone; what the numbers are is for the tests below."""
    base, batch = model_of(model_type)
    expected = jax.eval_shape(lambda p: base.apply_fn(p, batch, key=None), base.params)
    before = flatten(base.params)
    for row in methods_of(model_type).values():
        model = adapt(base, row)
        check_labels(base, model, row)
        calls = collections.Counter()
        model = model._replace(module=count(model.module, calls))
        outputs = jax.eval_shape(
            lambda params, module=model.module: module.apply({"params": params}, batch),
            model.params,
        )
        assert outputs == expected
        assert set(calls) == set(adapters.adapters_of(model.params))
        assert bool(calls) == row.adds
        for path, leaf in flatten(adapters.without_adapters(model.params)).items():
            assert leaf is before[path]


def count(module, calls):
    """The module, its adapter noting every call."""

    class Counting(type(module.adapter)):
        def forward(self, path, call, leaves):
            calls[path] += 1
            return super().forward(path, call, leaves)

    settings = {
        field.name: getattr(module.adapter, field.name)
        for field in dataclasses.fields(module.adapter)
    }
    return dataclasses.replace(module, adapter=Counting(**settings))


def check_labels(base, model, row):
    """What moves has optimizer state, and only that; each has its layer's depth."""
    labels, tx = labels_and_tx(model)
    moving = {path for path, label in flatten(labels).items() if label != FROZEN}
    own = {path for path in moving if path.startswith("adapters/")}
    head = {path for path in moving - own if is_head(model, path)}
    rest = moving - own - head
    assert bool(head) == (model.task != "seq2seq_lm")
    assert bool(own) == row.adds
    if isinstance(row.adapter, adapters.NormTuning):
        assert not any(path.endswith("/kernel") for path in rest)
    else:
        assert all(path.endswith("/bias") for path in rest)
        assert bool(rest) <= (getattr(row.adapter, "bias", "all") != "none")
    state = jax.eval_shape(
        lambda params: train.init_state(params, labels, tx=tx, key=jax.random.key(0)),
        model.params,
    )
    names = flatten(state.opt_state)
    assert {name.split("mu/", 1)[1] for name in names if "mu/" in name} == moving
    for path in own:
        module = path.removeprefix("adapters/").rpartition("/")[0]
        beside = [p for p in flatten(base.params) if p.startswith(f"{module}/")]
        assert max(map(base.layer_index, beside)) == model.layer_index(path)


def is_head(model, path):
    rules = model.family.head_rules[model.task]
    return any(re.fullmatch(rule, path) for rule in rules)


def adapt(base, row):
    return jft.adapt(base, row.adapter, key=jax.random.key(1))


@pytest.mark.parametrize("model_type", table.FAMILIES)
def test_starts_as_the_base_and_folds(model_type, model_of):
    base, batch = model_of(model_type)

    def compiled(model):
        answer = jax.jit(lambda params: model.apply_fn(params, batch, key=None))
        return lambda params: jax.device_get(answer(params))

    plain_fn = compiled(base)
    plain = plain_fn(base.params)
    zero = jax.tree.map(np.zeros_like, plain)
    for name, row in methods_of(model_type).items():
        model, size = adapt(base, row), largest_difference(plain, zero)
        adapted_fn = compiled(model)
        start = largest_difference(plain, adapted_fn(model.params))
        assert (start < 1e-5 * size) == row.starts, name
        moved = table.trained(model.params)
        adapted = adapted_fn(moved)
        assert row.adds == (largest_difference(plain, adapted) > 0.02 * size), name
        if not row.adapter.foldable:
            with pytest.raises(InputError, match="cannot be folded"):
                jft.fold(model, params=moved)
            continue
        size = max(size, largest_difference(adapted, zero))
        folded = jft.fold(model, params=moved)
        assert flatten(folded.params).keys() == flatten(base.params).keys()
        assert folded.module == base.module
        lost = largest_difference(plain_fn(folded.params), adapted)
        assert lost < 1e-5 * size, name
        assert jft.fold(folded).params is folded.params


def largest_difference(one, other):
    differences = jax.tree.map(lambda a, b: np.abs(a - b).max(), one, other)
    return float(max(jax.tree.leaves(differences)))


def labels_and_tx(model):
    base_labels = partition.label_params(
        adapters.without_adapters(model.params), [(".*", "base")]
    )
    labels = adapters.label_adapted(model.params, base_labels, model.adapter)
    tx = optim.make_optimizer(labels, learning_rate=0.05, weight_decay=0.1)
    return labels, tx


@pytest.mark.parametrize("model_type", STEPPED)
def test_a_step_moves_what_it_should_and_nothing_else(model_type, model_of):
    """From where an adapter has moved."""
    base, batch = model_of(model_type)
    for name, row in methods_of(model_type, whole=("bert",)).items():
        model = adapt(base, row)
        old = table.trained(model.params)
        labels, tx = labels_and_tx(model)
        state = train.init_state(old, labels, tx=tx, key=jax.random.key(0))
        step = train.make_train_step(model.apply_fn, away_from_zero, tx, labels)
        state, metrics = step(state, batch)
        assert np.isfinite(float(metrics["loss"])), name
        old, new = flatten(old), flatten(state.params)
        moved = {p for p in new if not np.array_equal(new[p], old[p])}
        asked = {p for p, label in flatten(labels).items() if label != FROZEN}
        assert moved <= asked, name
        assert not any(path.endswith(table.STILL) for path in moved), name
        assert asked - moved <= {p for p in asked if no_gradient(p)}, name
        assert any("adapters/" in path for path in moved) == row.adds, name


def away_from_zero(outputs, batch):
    del batch
    targets = jnp.sin(jnp.arange(outputs.size, dtype=jnp.float32)).reshape(
        outputs.shape
    )
    return jnp.square(outputs - targets).sum(), jnp.asarray(float(outputs.size))


def no_gradient(path):
    """A key's bias moves all scores of a row alike, but for rounding."""
    return path.endswith(("key/bias", "cls_token"))


def test_a_model_with_an_adapter_writes_texts():
    """As the base at first."""
    model, batch = table.make_model("gpt2", "causal_lm")
    adapter = Lora(rank=2, targets=("c_attn",))
    adapted = jft.adapt(model, adapter, key=jax.random.key(0))
    prompt = {"input_ids": np.asarray(batch["input_ids"])[:2, :3]}
    prompt["attention_mask"] = np.ones_like(prompt["input_ids"])

    def write(model, params):
        return generate(model._replace(params=params), prompt, max_new_tokens=4)

    np.testing.assert_array_equal(
        write(model, model.params).tokens, write(adapted, adapted.params).tokens
    )
    changed = write(adapted, table.trained(adapted.params, size=3.0))
    assert (changed.tokens != write(model, model.params).tokens).any()


def test_what_moves_as_a_whole_is_not_adapted():
    """A pooler drawn new: PEFT would put no adapter on it and lose both."""
    model, _ = table.make_model("bert", "sequence_classification")
    new = ("bert/pooler/dense/bias", "bert/pooler/dense/kernel")
    model = model._replace(report=model.report._replace(new=new, used=("x",)))
    adapted = jft.adapt(model, Lora(rank=2), key=jax.random.key(0))
    assert "bert/pooler/dense" not in adapters.adapters_of(adapted.params)
    with pytest.raises(InputError, match=r"bert/pooler/dense, which moves as a whole"):
        jft.adapt(model, Lora(rank=2, targets=("dense",)), key=jax.random.key(0))


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        (Lora(also_train=("bert/poler/.*",)), "'bert/poler/.*', which matches no"),
        (Lora(also_train=("bert/(.*",)), r"also_train has 'bert/\(.*', which is no"),
        (Lora(rank_pattern=(("query(", 2),)), r"rank_pattern has 'query\(', which"),
        (Lora(targets=("query(",)), r"targets has 'query\(', which is no regular"),
    ],
)
def test_rules_that_cannot_be_are_refused(adapter, said):
    model, _ = table.make_model("bert", "sequence_classification")
    with pytest.raises(InputError, match=said):
        jft.adapt(model, adapter, key=jax.random.key(0))
