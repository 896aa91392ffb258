# SPDX-License-Identifier: Apache-2.0
"""What every family of text models promises, whatever torch says."""

import collections
import contextlib
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jft
from jft.models import MODELS, get_family
from jft.models.dropout import Dropout
from jft.models.family import TASKS_OF_HEADS
from jft.params import abstract_params
from jft.paths import flatten
from jft.types import InputError
from tests.models import peer
from tests.models.table import TABLE

HEADS = [(name, task) for name in TABLE for task in MODELS[name].heads]
FIRST_HEADS = [
    (name, next(t for t in MODELS[name].heads if t != "base")) for name in TABLE
]


def make(model_type, task, changes=None):
    row = TABLE[model_type]
    config = peer.full_config(model_type, row, task, changes)
    module, params = peer.make_jft(model_type, config, task, row.scales)
    return module, params, peer.make_batch(row, config, task)


@functools.cache
def make_forward(model_type, task):
    """Of a family's plain model, jitted: what two tests ask is compiled once."""
    module, params, batch = make(model_type, task)
    return jax.jit(lambda p, x: module.apply({"params": p}, x)), params, batch


def test_every_text_family_has_a_row():
    text = {name for name, family in MODELS.items() if family.embedding_rules}
    assert text == TABLE.keys()


@pytest.mark.parametrize("model_type", MODELS)
def test_record_is_in_order(model_type):
    family = MODELS[model_type]
    assert family.heads.keys() <= set(TASKS_OF_HEADS)
    tiny = TABLE[model_type].config if model_type in TABLE else {}
    config = family.config_from_dict(tiny)
    untied = family.config_from_dict({**tiny, "tie_word_embeddings": False})
    for task in family.heads:
        paths = flatten(abstract_params(family, config, task=task))
        for rule in (*family.head_rules[task], *family.optional_rules.get(task, ())):
            known = [*paths, *flatten(abstract_params(family, untied, task=task))]
            assert any(re.fullmatch(rule, path) for path in known), (task, rule)
        layer_index = family.layer_index(config)
        num_layers = family.num_layers(config)
        depths = {path: layer_index(path) for path in paths}
        blocks = num_layers
        if not any("decoder" in path for path in paths):
            # token classification reads an encoder-decoder's encoder alone
            blocks = family.num_encoder_layers(config) or blocks
        assert set(depths.values()) >= set(range(blocks + 1))
        assert max(depths.values()) <= num_layers + 1
        for path, depth in depths.items():
            assert not family.is_head(path, task) or depth == num_layers + 1, path
        for path in paths:
            if re.fullmatch(family.final_norm, path):
                assert depths[path] == num_layers, path


@pytest.mark.parametrize("model_type", MODELS)
def test_unknown_path_has_no_depth(model_type):
    family = MODELS[model_type]
    config = family.config_from_dict({})
    block = next(
        path
        for path in flatten(
            abstract_params(family, config, task=next(iter(family.heads)))
        )
        if re.search(r"/\d+/", path)
    )
    beyond = re.sub(r"/\d+/", f"/{family.num_layers(config) + 7}/", block, count=1)
    for path in ("", "nonsense/kernel", beyond):
        with pytest.raises(InputError, match="belongs to no layer"):
            family.layer_index(config)(path)


@pytest.mark.parametrize(
    ("model_type", "name"), [(m, n) for m, row in TABLE.items() for n in row.num_params]
)
def test_published_size_has_its_parameter_count(model_type, name):
    family = get_family(model_type)
    task, expected = TABLE[model_type].num_params[name]
    params = abstract_params(family, family.variants[name], task=task)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected


@pytest.mark.parametrize("model_type", TABLE)
def test_every_published_size_is_counted(model_type):
    assert TABLE[model_type].num_params.keys() == MODELS[model_type].variants.keys()


@pytest.mark.parametrize(("model_type", "task"), FIRST_HEADS)
def test_stage_after_stage_is_the_whole(model_type, task):
    """Dropout included: its masks depend on the key and the module alone.

    What a stage hands on is kept without padding, which nothing may depend on.
    """
    module, params, batch = make(model_type, task, TABLE[model_type].dropout)
    num_stages = get_family(model_type).num_layers(module.config) + 2
    padded = batch["attention_mask"][..., None] == 0

    @jax.jit
    def run(params, key):
        options = {"deterministic": False, "rngs": {"dropout": key}}
        hidden = None
        for start in range(num_stages):
            hidden = module.apply(
                {"params": params}, batch, hidden=hidden, start=start, stop=start + 1,
                **options,
            )  # fmt: skip
            if isinstance(hidden, jax.Array) and start < num_stages - 1:
                hidden = jnp.where(padded, jnp.zeros((), hidden.dtype), hidden)
        return hidden, module.apply({"params": params}, batch, **options)

    parts, whole = run(params, jax.random.key(7))
    real = peer.real_positions(task, batch)
    parts, whole = (peer.pick(task, x)[real] for x in (parts, whole))
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("model_type", "task"), FIRST_HEADS)
def test_stage_uses_all_of_its_layer_and_nothing_else(model_type, task):
    module, params, batch = make(model_type, task)
    family = get_family(model_type)
    layer_index = family.layer_index(module.config)
    num_stages = family.num_layers(module.config) + 2

    def loss(params, stage, hidden):
        outputs = module.apply(
            {"params": params}, batch, hidden=hidden, start=stage, stop=stage + 1
        )
        sines = jax.tree.map(lambda x: jnp.sum(jnp.sin(x + 0.3)), outputs)
        return sum(jax.tree.leaves(sines)), outputs

    @jax.jit
    def grads_by_stage(params):
        hidden, grads = None, []
        for stage in range(num_stages):
            grad, hidden = jax.grad(loss, has_aux=True)(params, stage, hidden)
            grads.append(grad)
        return grads

    row, users = TABLE[model_type], collections.defaultdict(list)
    for stage, grads in enumerate(grads_by_stage(params)):
        for path, grad in flatten(grads).items():
            if bool(jnp.any(grad != 0)):
                users[path].append(stage)
    for path in flatten(params):
        own = layer_index(path)
        if any(re.fullmatch(rule, path) for rule in family.shared_rules):
            # tables of distances are of depth 0, where they are not used yet
            assert users[path], path
            assert users[path][0] >= own, path
        elif not re.fullmatch(row.zero_grad, path):
            assert users[path] == [own], path


@pytest.mark.parametrize(("model_type", "task"), FIRST_HEADS)
def test_dtype_follows_the_parameters(model_type, task):
    forward, params, batch = make_forward(model_type, task)
    single = np.asarray(forward(params, batch))
    half = forward(jax.tree.map(lambda x: x.astype(jnp.bfloat16), params), batch)
    assert half.dtype == jnp.bfloat16
    real = peer.real_positions(task, batch)
    half = np.asarray(half.astype(jnp.float32))
    np.testing.assert_allclose(half[real], single[real], atol=0.25)


@pytest.mark.parametrize(("model_type", "task"), FIRST_HEADS)
def test_padding_changes_nothing(model_type, task):
    forward, params, batch = make_forward(model_type, task)
    real = peer.real_positions(task, batch)
    pad = {name: np.pad(x, ((0, 0), (0, 2))) for name, x in batch.items()}
    outputs = np.asarray(forward(params, pad))
    if outputs.ndim > 2:
        outputs = outputs[:, : real.shape[1]]
    expected = np.asarray(forward(params, batch))
    np.testing.assert_allclose(outputs[real], expected[real], atol=2e-5)


@pytest.mark.parametrize("model_type", TABLE)
def test_text_longer_than_the_table_of_positions_is_refused(model_type):
    family, row = get_family(model_type), TABLE[model_type]
    most = family.max_positions(family.config_from_dict(row.config))
    tables = re.compile(r".*(?:position_embeddings|wpe|embed_positions)/embedding")
    module, params, _ = make(model_type, "base")
    if most is None:
        assert not any(tables.fullmatch(path) for path in flatten(params))
        return
    for length, fits in ((most, True), (most + 1, False)):
        batch = {"input_ids": jnp.full((1, length), 5, jnp.int32)}
        if row.encoder_decoder:
            batch["decoder_input_ids"] = jnp.full((1, 3), 5, jnp.int32)
        context = contextlib.nullcontext() if fits else pytest.raises(
            InputError, match=f"{length} tokens is longer than this model's {most} pos"
        )  # fmt: skip
        with context:
            jax.eval_shape(
                lambda p, batch: module.apply({"params": p}, batch), params, batch
            )


@pytest.mark.parametrize(("model_type", "task"), FIRST_HEADS)
def test_dropout_is_active_only_with_a_key(model_type, task):
    module, params, batch = make(model_type, task, TABLE[model_type].dropout)
    active = []

    def record(call, args, kwargs, context):
        if isinstance(context.module, Dropout) and context.method_name == "words":
            active.append(not args[0] and context.module.rate > 0)
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        apply_fn = jft.models.make_apply_fn(module)
        jax.eval_shape(lambda p: apply_fn(p, batch, key=None), params)
        assert not any(active)
        jax.eval_shape(lambda p: apply_fn(p, batch, key=jax.random.key(0)), params)
    assert any(active)


@pytest.mark.parametrize("model_type", MODELS)
def test_the_tensor_axis_finds_every_product_of_a_block(model_type):
    """Each is column-parallel or row-parallel, and both kinds occur."""
    family = MODELS[model_type]
    tiny = TABLE[model_type].config if model_type in TABLE else {}
    config = family.config_from_dict(tiny)
    shapes = flatten(abstract_params(family, config, task=next(iter(family.heads))))
    index, num_layers = family.layer_index(config), family.num_layers(config)
    products = [
        path
        for path, x in shapes.items()
        if path.endswith("/kernel") and x.ndim == 2 and 1 <= index(path) <= num_layers
    ]
    axes = {
        path: next((a for r, a in family.tensor_rules if re.fullmatch(r, path)), None)
        for path in products
    }
    assert set(axes.values()) == {-1, -2}, [p for p, a in axes.items() if a is None]
    tables = {path for path in shapes if path.endswith("word_embeddings/embedding")}
    for path in tables:
        rules = [(r, a) for r, a in family.tensor_rules if re.fullmatch(r, path)]
        assert rules[0][1] == 0


@pytest.mark.parametrize(
    "model_type", ["bert", "roberta", "xlm-roberta", "electra", "distilbert"]
)
def test_the_last_block_computes_what_the_head_reads(model_type):
    """Of a classifier of the first token that token alone; the answer is the same."""
    task = "sequence_classification"
    module, params, batch = make(model_type, task)
    last = get_family(model_type).num_layers(module.config) + 1

    def forward(params, **options):
        return module.apply({"params": params}, batch, **options)

    hidden = jax.jit(functools.partial(forward, stop=last))(params)
    assert hidden.shape[:2] == (len(batch["input_ids"]), 1)
    before = jax.jit(functools.partial(forward, stop=last - 1))(params)
    assert before.shape[:2] == batch["input_ids"].shape
    whole = type(module)(module.config, "token_classification")
    all_tokens = whole.apply({"params": params}, batch, stop=last)
    np.testing.assert_allclose(hidden, all_tokens[:, :1], rtol=1e-5, atol=1e-5)
    options = {"start": last - 1, "stop": last, "hidden": before}
    flops = [
        jax.jit(lambda p, m=m: m.apply({"params": p}, batch, **options))
        .lower(params)
        .compile()
        .cost_analysis()["flops"]
        for m in (module, whole)
    ]
    assert flops[0] < 0.6 * flops[1]
