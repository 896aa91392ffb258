# SPDX-License-Identifier: Apache-2.0
"""Scoring tokens in parts is scoring all at once; what has no target is left out."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jft import paths
from jft.data import IGNORED
from jft.models import MODELS, make_apply_fn, make_prefix_fn
from jft.partition import label_params
from jft.tasks import classification, language
from jft.train import (
    Chunks,
    cast_floating,
    distillation_loss,
    init_state,
    make_eval_step,
    make_pmap_train_step,
    make_train_step,
    place_state,
    replicate,
    shard_batch,
    split_over_devices,
    state_shardings,
    unreplicate,
)
from jft.train.chunked_loss import choose_size, score_tokens
from jft.types import InputError
from tests.models import peer
from tests.models.table import TABLE

LANGUAGE = ("masked_lm", "causal_lm", "seq2seq_lm")
CASES = [
    *((name, head, {}) for name in TABLE for head in LANGUAGE
      if head in MODELS[name].heads),
    ("bert", *TABLE["bert"].variants["untied, tanh gelu, large eps"]),
    ("gemma2", *next(iter(TABLE["gemma2"].variants.values()))),
]  # fmt: skip
IN_FLOAT32 = ("bert", "gemma2", "t5")


# --- every family ---------------------------------------------------------------------
def score_with(loss_fn):
    """All that training and evaluation ask of the outputs."""

    def score_fn(outputs, batch):
        sums = {
            "loss": loss_fn(outputs, batch),
            "token_accuracy": language.token_accuracy(outputs, batch),
            "rows": language.predict(outputs, batch),
        }
        return sums["loss"][0], sums

    return score_fn


def draw_batch(row, vocab_size, *, batch_size=4, length=11, asked=0.4, seed=0):
    rng = np.random.default_rng(seed)
    shape = (batch_size, length)
    batch = {"input_ids": rng.integers(4, vocab_size, shape).astype(np.int32)}
    batch["attention_mask"] = (np.arange(length) < length - 2).astype(np.int32)[None]
    batch["attention_mask"] = np.repeat(batch["attention_mask"], batch_size, axis=0)
    if row.encoder_decoder:  # of another length than what is read
        shape = (batch_size, length - 2)
        ids = rng.integers(4, vocab_size, shape).astype(np.int32)
        batch["decoder_input_ids"] = ids
    targets = rng.integers(4, vocab_size, shape).astype(np.int32)
    batch["targets"] = np.where(rng.random(shape) < asked, targets, IGNORED)
    batch["loss_mask"] = np.arange(batch_size, 0, -1).astype(np.float32) // 2
    return batch


def in_parts(module, name, size):
    boundary = MODELS[name].num_layers(module.config) + 1
    return Chunks(prefix_fn=make_prefix_fn(module), boundary=boundary, size=size)


def differentiate(apply_fn, params, batch, chunks, *, loss_fn, key=None):
    def loss_of(params):
        return score_tokens(
            apply_fn,
            params,
            batch,
            batch,
            score_with(loss_fn),
            key=key,
            chunks=chunks,
        )

    (_, sums), grads = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(params)
    return sums, paths.flatten(grads)


def assert_same(one, other, tolerance):
    for path, wanted in one[1].items():
        scale = max(1.0, float(np.abs(wanted).max()))
        np.testing.assert_allclose(
            np.asarray(other[1][path]) / scale,
            np.asarray(wanted) / scale,
            rtol=0,
            atol=tolerance,
            err_msg=path,
        )
    for a, b in zip(jax.tree.leaves(one[0]), jax.tree.leaves(other[0]), strict=True):
        # what is kept of each row is float32 whatever the model is
        limit = tolerance if a.dtype == jnp.float64 else max(tolerance, 1e-6)
        np.testing.assert_allclose(b, a, rtol=limit, atol=limit)


@pytest.mark.parametrize(
    ("name", "head", "changes", "dtype", "tolerance"),
    [
        *((*case, jnp.float64, 1e-10) for case in CASES),
        *((*case, jnp.float32, 1e-5) for case in CASES if case[0] in IN_FLOAT32),
    ],
)
def test_every_language_model_is_as_all_at_once(name, head, changes, dtype, tolerance):
    """Loss, metrics, what evaluation keeps, and every gradient, tied or not."""
    row = TABLE[name]
    config = peer.full_config(name, row, head, changes)
    module, params = peer.make_jft(name, config, head, row.scales)
    wide = dtype == jnp.float64
    # positions, which are int32 and int64 then, do not mix in strict promotion
    promotion = jax.numpy_dtype_promotion("standard" if wide else "strict")
    with jax.enable_x64(wide), promotion:
        params = cast_floating(params, dtype)
        batch = cast_floating(draw_batch(row, config["vocab_size"]), dtype)
        both = [
            differentiate(
                make_apply_fn(module),
                params,
                batch,
                chunks,
                loss_fn=language.make_loss(label_smoothing=0.1),
            )
            for chunks in (None, in_parts(module, name, 4))
        ]
    assert both[0][0]["loss"][0].dtype == dtype
    assert float(both[0][0]["loss"][1]) > 4
    assert_same(*both, tolerance)


# --- one of them ----------------------------------------------------------------------
BERT = {
    "vocab_size": 48,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 32,
}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
ALL = [(".*", "all")]
HEAD = [("cls/.*", "head"), (".*", "frozen")]
TOP = [("cls/.*|bert/encoder/layer/1/.*", "top"), (".*", "frozen")]


@functools.cache
def make_bert(**changes):
    config = {"model_type": "bert", **BERT, **NO_DROPOUT, **changes}
    return peer.make_jft("bert", config, "masked_lm")


def make_batch(vocab_size=48, **options):
    options = {"batch_size": 8, "length": 16, "asked": 0.2, **options}
    batch = draw_batch(TABLE["bert"], vocab_size, **options)
    return {**batch, "loss_mask": np.ones(options["batch_size"], np.float32)}


def make_step(module, params, size, rules=ALL, *, maker=make_train_step, **options):
    """A step whose optimizer leaves gradients where they can be read, and a state."""
    labels = label_params(params, rules)
    tx = optax.trace(decay=0.9)
    step = maker(
        make_apply_fn(module),
        language.make_loss(),
        tx,
        labels,
        group_of=MODELS["bert"].layer_index(module.config),
        metric_fns={"token_accuracy": language.token_accuracy},
        chunks=size and in_parts(module, "bert", size),
        **options,
    )
    return step, init_state(params, labels, tx=tx, key=jax.random.key(3))


def taken(module, params, size, batch, rules=ALL, **options):
    """Metrics and gradients of a step."""
    step, state = make_step(module, params, size, rules, **options)
    state, metrics = step(state, batch)
    return metrics, paths.flatten(state.opt_state)


def test_dropout_below_the_head_is_that_of_all_at_once():
    module, params = make_bert(hidden_dropout_prob=0.3)
    one, other = (taken(module, params, n, make_batch()) for n in (None, 3))
    assert_same(one, other, 1e-5)
    still, params = make_bert()
    plain, _ = taken(still, params, None, make_batch())
    assert abs(one[0]["loss"] - plain["loss"]) > 1e-3


@pytest.mark.parametrize("rules", [HEAD, TOP], ids=["head", "top"])
def test_frozen_layers_stay_out_of_it(rules):
    module, params = make_bert()
    one, other = (taken(module, params, n, make_batch(), rules) for n in (None, 3))
    assert_same(one, other, 1e-5)


def test_microbatches_are_scored_in_parts():
    module, params = make_bert()
    one = taken(module, params, None, make_batch())
    other = taken(module, params, 3, make_batch(), grad_accum_steps=4)
    assert_same(one, other, 1e-5)


@pytest.mark.parametrize("boundary", [1, 3])
def test_kept_activations_are_gone_on_from(boundary):
    """Also from the head's own boundary, where nothing is left to run below it."""
    module, params = make_bert()
    batch = make_batch()
    kept = make_prefix_fn(module)(params, batch, stop=boundary)
    one = taken(module, params, None, batch, HEAD)
    other = taken(module, params, 3, kept, HEAD, prefix_fn=make_prefix_fn(module))
    assert_same(one, other, 1e-5)


def test_packed_rows():
    module, params = make_bert()
    batch = make_batch()
    del batch["attention_mask"]
    half = np.arange(16) < 8
    batch["segment_ids"] = np.repeat(np.where(half, 1, 2)[None], 8, 0).astype(np.int32)
    batch["position_ids"] = np.repeat(np.arange(16)[None] % 8, 8, 0).astype(np.int32)
    one, other = (taken(module, params, n, batch) for n in (None, 3))
    assert_same(one, other, 1e-5)


def test_evaluation_keeps_the_same_of_each_row():
    module, params = make_bert()
    found = [
        make_eval_step(
            make_apply_fn(module),
            language.make_loss(),
            predict=language.predict,
            chunks=chunks,
        )(params, make_batch())
        for chunks in (None, in_parts(module, "bert", 3))
    ]
    assert_same((found[0], {}), (found[1], {}), 1e-5)
    assert found[1]["rows"]["counts"].shape == (8, 3)


# --- devices --------------------------------------------------------------------------
WAYS = {"one": (1, 1), "two": (2, 1), "four": (4, 1), "mixed": (2, 2), "fsdp": (1, 4)}


def on_mesh(way, size):
    """A step over some of the devices, its state and its batch."""
    module, params = make_bert()
    data, fsdp = WAYS[way]
    devices = np.array(jax.devices()[: data * fsdp]).reshape(data, fsdp)
    mesh = jax.sharding.Mesh(devices, ("data", "fsdp"))
    _, state = make_step(module, params, size)
    shardings = state_shardings(state, mesh)
    step, _ = make_step(module, params, size, state_shardings=shardings)
    return step, place_state(state, shardings), shard_batch(make_batch(), mesh)


@pytest.mark.parametrize("way", WAYS)
def test_devices_agree(way, monkeypatch):
    monkeypatch.setattr("jft.train.sharding.MIN_SHARDED_SIZE", 64)
    one = taken(*make_bert(), None, make_batch())
    step, state, batch = on_mesh(way, 3)
    state, metrics = step(state, batch)
    assert_same(one, (metrics, paths.flatten(state.opt_state)), 1e-5)


def test_pmap_agrees():
    module, params = make_bert()
    one = taken(module, params, None, make_batch())
    step, state = make_step(module, params, 3, maker=make_pmap_train_step)
    state, metrics = step(replicate(state), split_over_devices(make_batch()))
    found = paths.flatten(unreplicate(state).opt_state)
    assert_same(one, (metrics, found), 1e-5)


def test_no_device_gathers_the_rows_of_others():
    step, state, batch = on_mesh("four", 3)
    program = step.compile(state, batch).executable.as_text()
    assert buffers(program, 2, 18, 24)  # its own hidden states, filled up to 18
    assert not buffers(program, 8, 18, 24)
    assert not buffers(program, 8, 16, 24)


# --- the compiled program -------------------------------------------------------------
def buffers(program, *shape):
    return re.findall(rf"\[{','.join(map(str, shape))}\]", program)


def test_all_logits_are_never_there():
    batch_size, length, num_words, size = 8, 16, 480, 4
    module, params = make_bert(vocab_size=num_words)
    batch = make_batch(num_words)
    shape = (batch_size, length, num_words)
    flat = (batch_size * length, num_words)
    compiled, memory = {}, {}
    for n in (None, size):
        step, state = make_step(module, params, n)
        compiled[n] = step.compile(state, batch)
        program = compiled[n].executable.as_text()
        assert bool(buffers(program, *shape) or buffers(program, *flat)) == (n is None)
        memory[n] = compiled[n].executable.memory_analysis().temp_size_in_bytes
    logits = 4 * batch_size * length * num_words
    assert memory[size] < memory[None] - logits / 2
    # three products with the words; the compiler counts one part of the tokens
    part = 3 * 2 * batch_size * size * num_words * BERT["hidden_size"]
    asked = (batch["targets"] != IGNORED).sum(axis=1).max()
    parts = -(-asked // size)
    assert 1 < parts < length // size
    flops = compiled[size].flops + (parts - 1) * 1.2 * part
    assert flops < compiled[None].flops


def test_only_what_moves_has_a_gradient():
    """A frozen head costs no product for its words, a frozen body none for itself."""
    module, params = make_bert(vocab_size=480)
    body = [("cls/.*|.*word_embeddings/.*", "frozen"), (".*", "body")]
    flops, products = {}, {}
    for name, rules in (("all", ALL), ("head", HEAD), ("body", body)):
        step, state = make_step(module, params, 4, rules)
        flops[name] = step.compile(state, make_batch(480)).flops
        program = step.lower(state, make_batch(480)).as_text()
        products[name] = program.count("stablehlo.dot_general")
    # of the words and of the transform before them, also before XLA looks
    assert products["all"] - products["body"] == 2
    words = 2 * 8 * 4 * 480 * BERT["hidden_size"]
    assert flops["body"] < flops["all"] - 0.9 * words
    # of the head only its transform and bias: two products, as for the body
    assert flops["head"] < flops["body"]


# --- parts ----------------------------------------------------------------------------
B, L, D, V = 3, 8, 4, 7
RNG = np.random.default_rng(0)
PARAMS = {
    "body": np.asarray(RNG.normal(size=(D, D)), np.float32),
    "words": np.asarray(RNG.normal(size=(V, D)), np.float32),
    "unused": np.ones(3, np.float32),
}


def toy_prefix(params, batch, *, stop, key=None):
    """Words are looked up and mixed; the same words are the output layer."""
    if "hidden@1" in batch:
        return batch
    hidden = jnp.tanh(params["words"][jnp.asarray(batch["input_ids"])] @ params["body"])
    return {**batch, f"hidden@{stop}": hidden}


def toy_apply(params, batch, *, key, seen=None):
    hidden = toy_prefix(params, batch, stop=1)["hidden@1"]
    if seen is not None:
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), hidden[..., 0])
    logits = hidden @ params["words"].T
    if key is not None:  # as a head that drops out does
        logits = logits + jax.random.normal(key, logits.shape[1:], logits.dtype)[None]
    return logits


def toy_batch(counts=(2, 5, 0)):
    """As many targets a row, anywhere in it."""
    rng = np.random.default_rng(1)
    targets = np.full((B, L), IGNORED, np.int32)
    for row, count in enumerate(counts):
        chosen = rng.permutation(L)[:count]
        targets[row, chosen] = rng.integers(0, V, count)
    return {
        "input_ids": rng.integers(0, V, (B, L)).astype(np.int32),
        "targets": targets,
        "loss_mask": np.array([1.0, 0.5, 2.0], np.float32),
    }


def toy_chunks(size):
    return Chunks(prefix_fn=toy_prefix, boundary=1, size=size)


def toy(batch, size, *, loss_fn=None, apply_fn=toy_apply, params=PARAMS, **options):
    chunks = size and toy_chunks(size)
    loss_fn = loss_fn or language.make_loss()
    return differentiate(apply_fn, params, batch, chunks, loss_fn=loss_fn, **options)


@pytest.mark.parametrize(
    ("counts", "size", "parts"),
    [((2, 5, 0), 2, 3), ((2, 5, 0), 5, 1), ((8, 8, 8), 3, 3), ((0, 0, 0), 2, 0),
     ((1, 1, 1), 8, 1), ((1, 0, 1), 99, 1)],
)  # fmt: skip
def test_parts_without_a_target_are_not_run(counts, size, parts):
    seen = []
    batch = toy_batch(counts)
    apply_fn = functools.partial(toy_apply, seen=seen)
    found = toy(batch, size, apply_fn=apply_fn)
    jax.effects_barrier()
    assert [x.shape for x in seen] == [(B, min(size, L))] * parts
    assert_same(toy(batch, None), found, 1e-5)
    assert np.all(found[1]["unused"] == 0)


def test_tokens_of_no_target_may_be_anything():
    batch = toy_batch((2, 2, 2))
    hidden = toy_prefix(PARAMS, batch, stop=1)["hidden@1"]
    expected = toy({**batch, "hidden@1": hidden}, None)
    hidden = jnp.where((batch["targets"] == IGNORED)[..., None], jnp.nan, hidden)
    batch = {**batch, "hidden@1": hidden}
    assert_same(expected, toy(batch, 2), 1e-5)
    assert np.isnan(toy(batch, None)[0]["loss"][0])


def some(shape, low=0.5):
    return np.asarray(np.random.default_rng(2).uniform(low, 2, shape), np.float32)


@pytest.mark.parametrize(
    "loss_fn",
    [
        language.make_loss(label_smoothing=0.2),
        classification.make_loss(class_weights=some(V), focal_gamma=2.0),
        distillation_loss(language.make_loss(), weight=0.7, temperature=2.0),
    ],
    ids=["smoothed", "weighed and focal", "distilled"],
)
def test_losses_of_every_kind(loss_fn):
    batch = {**toy_batch((2, 5, 4)), "teacher_logits": some((B, L, V), -2)}
    assert_same(*(toy(batch, n, loss_fn=loss_fn) for n in (None, 3)), 1e-5)


def test_weights_of_targets_go_with_them():
    batch = {**toy_batch((2, 5, 4)), "loss_mask": some((B, L))}
    one, other = (toy(batch, n, loss_fn=classification.make_loss()) for n in (None, 3))
    assert one[0]["loss"][1] == pytest.approx(
        batch["loss_mask"][batch["targets"] != IGNORED].sum()
    )
    assert_same(one, other, 1e-5)


def test_the_gradient_is_scaled_by_what_comes_behind():
    batch, chunks = toy_batch(), toy_chunks(2)

    def slope(factor, of):
        def loss_of(params):
            total, sums = score_tokens(
                toy_apply,
                params,
                batch,
                batch,
                score_with(language.make_loss()),
                key=None,
                chunks=chunks,
            )
            return factor * of(total, sums)

        return jax.jit(jax.grad(loss_of))(PARAMS)["words"]

    once = slope(1.0, lambda total, sums: total)
    np.testing.assert_allclose(
        slope(3.0, lambda total, sums: total), 3 * once, rtol=1e-5
    )
    assert not slope(1.0, lambda total, sums: sums["loss"][1]).any()


def test_the_head_drops_out_anew_in_each_part():
    batch = toy_batch((8, 8, 8))
    key = jax.random.key(7)
    sums, _ = toy(batch, 4, key=key)
    expected = 0.0
    hidden = toy_prefix(PARAMS, batch, stop=1)["hidden@1"]
    for i, part in enumerate((slice(0, 4), slice(4, 8))):
        fields = {"hidden@1": hidden[:, part], "targets": batch["targets"][:, part]}
        logits = toy_apply(PARAMS, fields, key=jax.random.fold_in(key, i))
        fields["loss_mask"] = batch["loss_mask"]
        expected += float(language.make_loss()(logits, fields)[0])
    np.testing.assert_allclose(sums["loss"][0], expected, rtol=1e-5)


def test_many_parts_lose_no_gradient_in_half_precision():
    """They are added up in float32: in bfloat16 a long sum would hardly grow."""

    def apply_fn(params, batch, *, key):
        return toy_apply(params, batch, key=key) + params["bias"][None, None]

    shape = (4, 1024)
    batch = {
        "input_ids": np.random.default_rng(3).integers(0, V, shape).astype(np.int32),
        "targets": np.zeros(shape, np.int32),
        "loss_mask": np.ones(4, np.float32),
    }
    params = cast_floating({**PARAMS, "bias": np.zeros(V)}, jnp.bfloat16)
    exact, found = (
        np.asarray(toy(batch, n, params=p, apply_fn=apply_fn)[1]["bias"], np.float32)
        for n, p in ((None, cast_floating(params, jnp.float32)), (1, params))
    )
    assert exact[0] < -1000
    assert abs(found[0] / exact[0] - 1) < 0.01


def test_few_logits_are_scored_at_once():
    batch, seen = toy_batch(), []
    chunks = Chunks(prefix_fn=toy_prefix, boundary=1)
    apply_fn = functools.partial(toy_apply, seen=seen)
    differentiate(apply_fn, PARAMS, batch, chunks, loss_fn=language.make_loss())
    jax.effects_barrier()
    assert [x.shape for x in seen] == [(B, L)]


@pytest.mark.parametrize("num_words", [5000, 50_000])
@pytest.mark.parametrize("batch_size", [1, 7, 32, 1000])
@pytest.mark.parametrize("length", [20, 128, 1000, 4096])
def test_the_size_is_a_small_part_or_as_many_tokens_as_pay(
    batch_size, length, num_words
):
    size = choose_size(batch_size, length, num_words)
    if size is None:
        assert batch_size * length * num_words < 2**22
    else:
        assert size == length or size % 8 == 0
        assert size <= length
        assert size <= max(length // 16, 512 // batch_size) + 9


def test_what_is_no_sum_over_tokens_is_refused():
    step = make_eval_step(toy_apply, language.make_loss(), chunks=toy_chunks(2))
    with pytest.raises(
        InputError, match=r"\(3, 8, 7\).*\(3, 2, 7\).*predict that sums"
    ):
        step(PARAMS, toy_batch())


def test_outputs_that_are_not_of_tokens_are_refused():
    def pooled(params, batch, *, key):
        return toy_apply(params, batch, key=key).mean(axis=1)

    with pytest.raises(InputError, match=r"\(3, 7\), the targets \(3, 8\).*chunks"):
        toy(toy_batch(), 2, apply_fn=pooled)
