# SPDX-License-Identifier: Apache-2.0
"""Adapters over a base of 8 or 4 bits, on every family that differs."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jft
from jft import checkpoint, optim, partition, train
from jft.evals import generate
from jft.models.remat import with_remat
from jft.params import adapters, interpolate
from jft.params.adapters import Lora, NormTuning
from jft.params.quantised import KINDS, flatten_whole, is_quantised
from jft.paths import flatten, map_with_path
from jft.tasks import language
from jft.types import FROZEN, InputError
from tests.params.adapters import table

KEY = jax.random.key(1)
# families that make their layers in ways of their own, and those that are run
DISTINCT = ("albert", "bert", "deberta-v2", "gpt2", "llama", "modernbert", "t5", "vit")
ANSWERED = ("bert", "gpt2", "llama", "t5", "vit")


@pytest.fixture(scope="module")
def model_of():
    made = {}

    def get(model_type, task=None):
        if (model_type, task) not in made:
            made[model_type, task] = table.make_model(model_type, task)
        return made[model_type, task]

    return get


@pytest.fixture(scope="module")
def nf4(model_of):
    """A tiny BERT on 4 bits, and a batch."""
    base, batch = model_of("bert")
    return jft.quantize(base, "nf4"), batch


def quantised_paths(params):
    return {path for path, leaf in flatten_whole(params).items() if is_quantised(leaf)}


@pytest.mark.parametrize("model_type", DISTINCT)
def test_every_product_but_the_heads_is_quantised(model_type, model_of):
    """By tracing alone; each array has the depth that its matrix had."""
    base, batch = model_of(model_type)
    made = []

    def quantize(params):
        made.append(jft.quantize(base._replace(params=params), "nf4"))
        return made[0].params

    params = jax.eval_shape(quantize, base.params)
    model = jft.adapt(made[0]._replace(params=params), Lora(rank=2), key=KEY)
    products = adapters.find_products(base.family, base.module.config, base.task)
    head = base.family.head_rules[base.task]
    dense = {f"{path}/kernel" for path, x in products.items() if x.kind == "dense"}
    expected = {p for p in dense if not any(re.fullmatch(rule, p) for rule in head)}
    assert quantised_paths(model.params) == expected != set()
    for path in flatten(adapters.without_adapters(model.params)):
        whole = next((p for p in expected if path.startswith(f"{p}/")), path)
        assert model.layer_index(path) == base.layer_index(whole)
    assert partition.num_params(params) == partition.num_params(base.params)
    run = jax.eval_shape(lambda p: model.apply_fn(p, batch, key=None), model.params)
    assert run == jax.eval_shape(
        lambda p: base.apply_fn(p, batch, key=None), base.params
    )


@pytest.mark.parametrize(
    ("model_type", "kind"), [*((name, "nf4") for name in ANSWERED), ("bert", "int8")]
)
def test_starts_as_the_quantised_base_and_folds(model_type, kind, model_of):
    """And the base answers as a plain model does that has the numbers of the codes."""
    base, batch = model_of(model_type)
    plain_fn = jax.jit(lambda params: base.apply_fn(params, batch, key=None))
    model = jft.quantize(base, kind)
    adapted = jft.adapt(model, Lora(rank=2, dora=True), key=KEY)
    adapted_fn = jax.jit(lambda params: adapted.apply_fn(params, batch, key=None))
    start = plain_fn(jft.fold(model).params)
    close(adapted_fn(adapted.params), start)
    assert distance(start, plain_fn(base.params)) > 1e-3  # it is not the base's
    moved = table.trained(adapted.params)
    end = adapted_fn(moved)
    assert distance(end, start) > 0.02
    folded = jft.fold(adapted, params=moved)
    assert flatten(folded.params).keys() == flatten(base.params).keys()
    close(plain_fn(folded.params), end)


def answers(model, params, batch):
    return jax.jit(lambda params: model.apply_fn(params, batch, key=None))(params)


def distance(one, other):
    """The largest difference, in units of the largest number."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    largest = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(other))
    return max(float(jnp.abs(a - b).max()) for a, b in pairs) / largest


def close(one, other):
    assert distance(one, other) < 1e-5


def test_pissa_starts_as_the_quantised_base(nf4):
    model, batch = nf4
    adapted = jft.adapt(model, Lora(rank=2, init_method="pissa"), key=KEY)
    close(
        answers(adapted, adapted.params, batch),
        answers(model, model.params, batch),
    )


def label(model, rules=((".*", "base"),)):
    labels = partition.label_params(adapters.without_adapters(model.params), rules)
    if model.adapter is None:
        return labels
    return adapters.label_adapted(model.params, labels, model.adapter)


def away_from_zero(outputs, batch):
    del batch
    outputs = outputs.astype(jnp.float32)
    targets = jnp.sin(jnp.arange(outputs.size, dtype=jnp.float32))
    loss = jnp.square(outputs - targets.reshape(outputs.shape)).sum()
    return loss, jnp.asarray(float(outputs.size))


def run_steps(model, batch, labels, num=8, dtype=None):
    tx = optim.make_optimizer(labels, learning_rate=0.02)
    state = train.init_state(model.params, labels, tx=tx, key=KEY, frozen_dtype=dtype)
    step = train.make_train_step(
        model.apply_fn, away_from_zero, tx, labels, compute_dtype=dtype
    )
    losses = []
    for _ in range(num):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    return state, losses


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_training_lowers_the_loss_and_leaves_the_codes(nf4, dtype):
    """Adapters, their optimizer state and what scales the codes stay in float32."""
    model, batch = nf4
    model = jft.adapt(model, Lora(rank=2), key=KEY)
    labels = label(model)
    state, losses = run_steps(model, batch, labels, dtype=dtype)
    assert losses[-1] < 0.5 * losses[0]
    before, after = flatten(model.params), flatten(state.params)
    parts = {p for p in before if p.rpartition("/")[0].endswith("/kernel")}
    assert len(parts) == 5 * len(quantised_paths(model.params))
    for path in parts:
        np.testing.assert_array_equal(before[path], after[path])
        assert before[path].dtype == after[path].dtype
    moving = {path for path, name in flatten(labels).items() if name != FROZEN}
    of_optimizer = flatten(state.opt_state)
    assert {p.split("mu/", 1)[1] for p in of_optimizer if "mu/" in p} == moving
    assert {after[path].dtype for path in moving} == {jnp.dtype("float32")}


def test_a_head_alone_trains_on_a_quantised_base(nf4):
    model, batch = nf4
    labels = label(model, [("classifier/.*", "head"), (".*", FROZEN)])
    state, losses = run_steps(model, batch, labels)
    assert losses[-1] < losses[0]
    folded = jft.fold(model, params=state.params)
    close(
        answers(folded, folded.params, batch),
        answers(model, state.params, batch),
    )


def test_blocks_that_keep_less_give_the_same_gradients(nf4):
    model, batch = nf4
    model = jft.adapt(model, Lora(rank=2), key=KEY)
    moved = table.trained(model.params)

    def gradients(apply_fn):
        def loss(own):
            params = {**moved, "adapters": own}
            return away_from_zero(apply_fn(params, batch, key=None), batch)[0]

        return jax.jit(jax.grad(loss))(moved["adapters"])

    expected = gradients(model.apply_fn)
    less = with_remat(model.apply_fn, [(r".*/\d+", "products")])
    close(gradients(less), expected)


def test_a_language_model_writes_and_is_scored_in_parts(model_of):
    base, batch = model_of("gpt2", "causal_lm")
    model = jft.adapt(jft.quantize(base, "nf4"), Lora(rank=2), key=KEY)
    plain = jft.fold(model)
    prompt = {"input_ids": np.asarray(batch["input_ids"])[:2, :3]}
    prompt["attention_mask"] = np.ones_like(prompt["input_ids"])
    np.testing.assert_array_equal(
        generate(model, prompt, max_new_tokens=4).tokens,
        generate(plain, prompt, max_new_tokens=4).tokens,
    )
    labels, losses = label(model), []
    tx = optim.make_optimizer(labels, learning_rate=0.02)
    ids = jnp.asarray(batch["input_ids"])
    batch = {**batch, "targets": ids, "loss_mask": jnp.ones(len(ids))}
    parts = train.Chunks(
        prefix_fn=model.prefix_fn, boundary=model.num_layers + 1, size=2
    )
    for chunks in (None, parts):
        state = train.init_state(model.params, labels, tx=tx, key=KEY)
        step = train.make_train_step(
            model.apply_fn, language.make_loss(), tx, labels, chunks=chunks
        )
        for _ in range(2):
            state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_nf4_on_a_trainable_leaf_is_refused(nf4):
    model, batch = nf4
    path = "bert/encoder/layer/0/attention/self/query/kernel"
    said = rf"{path} is quantised \(nf4\), so it cannot train, but its label is 'base'"
    with pytest.raises(InputError, match=said):
        run_steps(model, batch, label(model, [(path, "base"), (".*", FROZEN)]))
    with pytest.raises(InputError, match=r"kernel is quantised \(nf4\).*jft\.adapt"):
        run_steps(model, batch, label(model))


@pytest.mark.parametrize("rule", ["bert/encoder/layer/1/.*", ".*/query/kernel"])
def test_an_adapter_that_trains_a_quantised_leaf_is_refused(nf4, rule):
    with pytest.raises(InputError, match=r"bert/encoder/.* is quantised \(nf4\)"):
        jft.adapt(nf4[0], Lora(rank=2, also_train=(rule, "classifier/.*")), key=KEY)


def test_what_cannot_be_done_is_refused(nf4, model_of, tmp_path):
    model, _ = nf4
    with pytest.raises(InputError, match=r"quantised already.*jft\.fold"):
        jft.quantize(model, "int8")
    with pytest.raises(InputError, match=r"has the adapter"):
        jft.quantize(jft.adapt(model_of("bert")[0], NormTuning(), key=KEY), "nf4")
    with pytest.raises(InputError, match=r"'nf3' is no way"):
        jft.quantize(model_of("bert")[0], "nf3")
    with pytest.raises(InputError, match=r"kernel is quantised, and codes cannot be"):
        interpolate(model.params, model.params, 0.5)
    with pytest.raises(InputError, match=r"the model is quantised.*jft\.fold"):
        jft.save(tmp_path, model)


def test_an_adapter_goes_to_peft_and_back(nf4, model_of, tmp_path):
    """What is written is the adapter alone; it is read on the base in full too."""
    model, batch = nf4
    adapted = jft.adapt(model, Lora(rank=2), key=KEY)
    moved = table.trained(adapted.params)
    jft.save_adapter(tmp_path, adapted, params=moved)
    again = jft.load_adapter(tmp_path, model)
    close(answers(again, again.params, batch), answers(adapted, moved, batch))
    in_full = jft.load_adapter(tmp_path, model_of("bert")[0])
    assert not quantised_paths(in_full.params)
    whole = Lora(rank=2, also_train=("bert/encoder/layer/0/output/dense/.*",))
    jft.save_adapter(tmp_path, jft.adapt(model_of("bert")[0], whole, key=KEY))
    with pytest.raises(InputError, match=r"output/dense/kernel, trained as a whole"):
        jft.load_adapter(tmp_path, model)


def test_a_bias_of_a_quantised_product_is_kept_without_its_matrix(nf4, tmp_path):
    model, batch = nf4
    rules = (".*/0/.*/value/bias", "classifier/.*")
    adapted = jft.adapt(model, Lora(rank=2, also_train=rules), key=KEY)
    moved = map_with_path(
        lambda path, x: x + 0.5 if path.endswith("0/attention/self/value/bias") else x,
        table.trained(adapted.params),
    )
    jft.save_adapter(tmp_path, adapted, params=moved)
    again = jft.load_adapter(tmp_path, model)
    close(answers(again, again.params, batch), answers(adapted, moved, batch))


def test_a_checkpoint_knows_the_codes(nf4, model_of):
    """Frozen arrays are not written; the digest tells one base from another."""
    model = jft.adapt(nf4[0], Lora(rank=2), key=KEY)
    labels = label(model)
    tx = optim.make_optimizer(labels, learning_rate=0.02)
    state = train.init_state(model.params, labels, tx=tx, key=KEY)
    kept, full = (
        flatten(checkpoint.state_arrays(state, full=full)) for full in (False, True)
    )
    assert not any(path.endswith("/nf4") for path in kept)
    assert sum(path.endswith("/nf4") for path in full) == len(
        quantised_paths(model.params)
    )
    digests = {
        checkpoint.tree_digest(params)
        for params in (
            model_of("bert")[0].params,
            *(jft.quantize(model_of("bert")[0], kind).params for kind in KINDS),
        )
    }
    assert len(digests) == 3
    assert checkpoint.tree_digest(nf4[0].params) in digests


def test_a_step_on_a_mesh_is_the_step_on_a_device(nf4, monkeypatch):
    """Codes are spread over fsdp, and gathered as codes."""
    monkeypatch.setattr("jft.train.sharding.MIN_SHARDED_SIZE", 1)
    model, batch = nf4
    model = jft.adapt(model, Lora(rank=2), key=KEY)
    batch = {name: jnp.concatenate([x, x])[:4] for name, x in batch.items()}
    labels = label(model)
    expected, _ = run_steps(model, batch, labels, num=2)
    mesh = train.make_mesh(data=2, fsdp=2)
    tx = optim.make_optimizer(labels, learning_rate=0.02)
    state = train.init_state(model.params, labels, tx=tx, key=KEY)
    shardings = train.state_shardings(state, mesh)
    path = "bert/encoder/layer/0/intermediate/dense/kernel/nf4"
    assert "fsdp" in flatten(shardings.frozen)[path].spec
    state = train.place_state(state, shardings)
    step = train.make_train_step(
        model.apply_fn, away_from_zero, tx, labels, state_shardings=shardings
    )
    for _ in range(2):
        state, _ = step(state, train.shard_batch(batch, mesh))
    own = (state.trainable["adapters"], expected.trainable["adapters"])
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), *own)
