# SPDX-License-Identifier: Apache-2.0
"""What cuDNN is given is what the plain path computes, and only where it may be."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax._src.cudnn import fused_attention_stablehlo as of_jax
from jax._src.interpreters import mlir
from jax.sharding import NamedSharding, PartitionSpec

import jft
from jft.models import cudnn
from jft.models.attention import attend, causal_mask, padding_mask
from jft.models.remat import with_remat
from jft.models.virtual_tokens import Seen, put_before
from jft.types import InputError

B, L, H, G, K = 3, 8, 4, 2, 8
LENGTHS = np.array([8, 5, 0])  # full, padded, padding alone
PADDED = (np.arange(L)[None] < LENGTHS[:, None]).astype(np.int32)
HOLES = PADDED * (np.arange(L) != 2)
SEGMENTS = np.array([[1] * 5 + [2] * 3, [1, 1, 2, 2, 2, 0, 0, 0], [0] * 8])
IDS = np.ones((B, L), np.int32)

plain = {"input_ids": IDS}
padded = {**plain, "attention_mask": PADDED}
packed = {**plain, "segment_ids": SEGMENTS, "position_ids": IDS}
cached = {**plain, "cache_mask": np.pad(PADDED, [(0, 0), (2, 2)]), "cache_index": 2}
before = {**padded, "num_before": 2}

# name -> (mask, right_padded, names of what cuDNN is given)
MASKS = {
    "none": (lambda: None, False, ""),
    "padding": (lambda: padding_mask(padded), False, "is_causal mask"),
    "lengths": (lambda: padding_mask(padded), True, "is_causal key_value_seq_lengths"),
    "holes": (
        lambda: padding_mask({**plain, "attention_mask": HOLES}),
        False,
        "is_causal mask",
    ),
    "packed": (lambda: padding_mask(packed), True, "is_causal mask"),
    "causal": (lambda: causal_mask(plain), False, "is_causal"),
    "window": (
        lambda: causal_mask(plain, window=3),
        True,
        "is_causal local_window_size",
    ),
    "causal padding": (lambda: causal_mask(padded), False, "is_causal mask"),
    "causal lengths": (
        lambda: causal_mask(padded),
        True,
        "is_causal key_value_seq_lengths",
    ),
    "window padding": (
        lambda: causal_mask(padded, window=3),
        True,
        "is_causal mask",
    ),
    "causal packed": (lambda: causal_mask(packed), True, "is_causal mask"),
    "cache": (lambda: causal_mask(cached), True, "is_causal mask"),
    "before": (lambda: causal_mask(before), True, "is_causal mask"),
}


def make_seen(mask, bias=None, dtype=jnp.float32, num_keys=L):
    """Queries, and what they look at; as many keys as the mask has."""
    num_keys = num_keys if mask is None else mask.allowed.shape[-1]
    draw = functools.partial(jax.random.normal, dtype=dtype)
    keys = jax.random.split(jax.random.key(0), 3)
    query = draw(keys[0], (B, L, H, K))
    of_keys = [draw(key, (B, num_keys, G, K)) for key in keys[1:]]
    return query, Seen(*of_keys, mask, bias)


def attend_plainly(query, seen, **options):
    class Module(nn.Module):
        @nn.compact
        def __call__(self):
            key, value, mask, bias = seen
            return attend(query, key, value, mask=mask, bias=bias, **options)

    rngs = {"dropout": jax.random.key(1)}
    return Module().apply({}, rngs=rngs)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("name", MASKS)
def test_what_cudnn_is_given_means_the_same(name, biased):
    """For jax's own plain attention; a row that sees nothing is the mean of all.

    But of a row of padding alone given by its length: there it is the first value.
    """
    make, right_padded, names = MASKS[name]
    mask, bias = make(), None
    if biased:
        num_keys = L if mask is None else mask.allowed.shape[-1]
        bias = jax.random.normal(jax.random.key(2), (1, H, L, num_keys))
    query, seen = make_seen(mask, bias)
    given = cudnn.fused_arguments(query, seen, right_padded=right_padded)
    if biased:
        assert "bias" in given
        assert not given.keys() & {"key_value_seq_lengths", "local_window_size"}
    else:
        assert sorted(given) == sorted(names.split())
    theirs = jax.nn.dot_product_attention(
        query, *seen[:2], scale=0.3, implementation="xla", **given
    )
    ours = attend_plainly(query, seen, scale=0.3)
    real = slice(None)
    if "key_value_seq_lengths" in given:
        real = LENGTHS > 0
        first = jnp.repeat(seen.value[2, :1], H // G, axis=1)
        np.testing.assert_allclose(theirs[2], np.broadcast_to(first, (L, H, K)))
    np.testing.assert_allclose(ours[real], theirs[real], atol=2e-6)


def test_a_mask_that_is_added_hides_keys_and_keeps_empty_rows_finite():
    """As jax adds it in bfloat16: a row that sees nothing mixes all values alike."""
    query, seen = make_seen(padding_mask(padded), dtype=jnp.bfloat16)
    given = cudnn.fused_arguments(query, seen, right_padded=False)
    added = of_jax.combine_bias_and_mask(None, given["mask"], jnp.dtype("bfloat16"))
    scores = jnp.ones((B, 1, L, L), jnp.float32).at[..., 3].set(40.0)
    probs = np.asarray(jax.nn.softmax(scores + added.astype(jnp.float32)))
    assert probs[1, ..., 5:].max() == 0
    np.testing.assert_allclose(probs[2], 1 / L)


def test_keys_put_before_are_seen_by_all():
    """By a prefix adapter: the mask is then no longer causal from the first key on."""
    query, seen = make_seen(causal_mask(padded))
    more = put_before(seen, jnp.ones((2, G, K)), jnp.ones((2, G, K)))
    given = cudnn.fused_arguments(query, more, right_padded=True)
    assert not given["is_causal"]
    assert given["mask"].shape == (B, 1, L, L + 2)
    assert given["mask"][..., :2].all()


ODD = {
    "none": (lambda batch: None, True),
    "padding": (padding_mask, False),
    "lengths": (padding_mask, True),
    "causal": (lambda batch: causal_mask({"input_ids": batch["input_ids"]}), False),
    "causal padding": (causal_mask, False),
    "causal lengths": (causal_mask, True),
    "window": (functools.partial(causal_mask, window=3), True),
}


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("name", ODD)
def test_odd_numbers_are_made_even(monkeypatch, name, biased):
    """A key that none looks at, and a query that is left out again."""
    (make, right_padded), call = ODD[name], jax.nn.dot_product_attention
    odd = {"input_ids": IDS[:, :7], "attention_mask": PADDED[:, :7]}
    bias = jax.random.normal(jax.random.key(2), (1, H, 7, 7)) if biased else None
    query, seen = make_seen(make(odd), bias, num_keys=7)
    query = query[:, :7]

    def by_xla(query, key, value, implementation, **given):
        assert query.shape[1] == key.shape[1] == 8
        return call(query, key, value, implementation="xla", **given)

    monkeypatch.setattr(jax.nn, "dot_product_attention", by_xla)
    fused = cudnn.with_attention(
        lambda params, batch: cudnn.attend_fused(query, seen, scale=0.3),
        "auto",
        right_padded=right_padded,
    )
    real = LENGTHS > 0
    theirs, ours = fused({}, {}), attend_plainly(query, seen, scale=0.3)
    assert theirs.shape == ours.shape
    np.testing.assert_allclose(theirs[real], ours[real], atol=2e-6)


# --- the decision ---------------------------------------------------------------------
def decide(
    *,
    dtype="bfloat16",
    width=64,
    length=128,
    mask=None,
    bias=None,
    softcap=None,
    drops=False,
    head_shares=1,
    capability=(9, 0),
):
    x = jnp.zeros((2, length, 4, width), dtype)
    return cudnn.refusal(
        x,
        Seen(x, x, mask, bias),
        softcap=softcap,
        drops=drops,
        head_shares=head_shares,
        capability=capability,
    )


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ({}, None),
        ({"dtype": "float16"}, None),
        ({"dtype": "float32"}, "computes in float32"),
        ({"capability": None}, "no NVIDIA GPU"),
        ({"capability": (7, 5)}, "capability 7.5"),
        ({"capability": (8, 0)}, None),
        ({"width": 128, "capability": (8, 6)}, None),
        ({"width": 256, "capability": (8, 6)}, "up to 128"),
        ({"width": 256}, None),
        ({"width": 264}, "up to 256"),
        ({"width": 36}, "multiples of 8"),
        ({"drops": True}, "drop out"),
        ({"softcap": 50.0}, "capped"),
        ({"head_shares": 4}, None),
        ({"head_shares": 8}, "8 devices share 4 heads"),
        ({"length": 1}, "one query"),
        ({"length": 197}, None),
        ({"length": 197, "bias": np.zeros((1, 4, 197, 197))}, None),
    ],
)
def test_the_decision(case, why):
    told = decide(**case)
    assert told is None if why is None else why in told


@pytest.fixture
def hopper(monkeypatch):
    """A machine that says that it has one, which is enough to lower programs for it."""
    own = (9, 0)
    monkeypatch.setattr(cudnn, "cuda_capability", lambda: own)
    monkeypatch.setattr(of_jax, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(
        of_jax,
        "check_compute_capability",
        lambda least: own >= tuple(map(int, least.split("."))),
    )
    monkeypatch.setattr(of_jax, "is_cuda_compute_capability_equal", lambda _: False)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("length", [1, 127, 128])
@pytest.mark.parametrize("width", [4, 8, 256, 264])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_what_is_not_refused_jax_takes(hopper, dtype, width, length, biased):
    """Its checks, of the derivative too, of odd numbers made even."""
    bias = jnp.zeros((1, 4, length, length), dtype) if biased else None
    refused = decide(dtype=dtype, width=width, length=length, bias=bias) is not None
    x = jnp.zeros((2, length, 4, width), dtype)

    def loss(x):
        mixed = cudnn.attend_fused(x, Seen(x, x, None, bias), scale=0.1)
        return mixed.sum(dtype=jnp.float32)

    if not refused:
        jax.eval_shape(jax.grad(loss), x)
    elif length > 1:
        with pytest.raises((NotImplementedError, ValueError)):
            jax.eval_shape(jax.grad(loss), x)


# --- the program ----------------------------------------------------------------------
BERT = {
    "model_type": "bert",
    "vocab_size": 32,
    "hidden_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "attention_probs_dropout_prob": 0.0,
}
LLAMA = {
    "model_type": "llama",
    "vocab_size": 32,
    "hidden_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}


@functools.cache
def make_model(name, dropout=0.0, task="token_classification"):
    config = {"bert": {**BERT, "attention_probs_dropout_prob": dropout}, "llama": LLAMA}
    return jft.init_model(config[name], key=jax.random.key(0), task=task)


def program(model, dtype="bfloat16", kind="auto", **options):
    """The text of a forward and a backward pass as lowered for CUDA."""
    params = jax.tree.map(lambda x: x.astype(dtype), model.params)
    batch = {
        "input_ids": jnp.ones((2, 16), jnp.int32),
        "attention_mask": jnp.ones((2, 16), jnp.int32),
    }
    apply_fn = cudnn.with_attention(model.apply_fn, kind, **options)

    def loss(params, batch):
        logits = apply_fn(params, batch, key=jax.random.key(0))
        return logits.sum(dtype=jnp.float32)

    step = jax.jit(jax.grad(loss))
    return step.trace(params, batch).lower(lowering_platforms=("cuda",)).as_text()


def calls(text):
    return sorted(re.findall(r"__cudnn\$fmha(\w+)", text))


@pytest.mark.parametrize(
    ("name", "mask_type"), [("bert", "PADDING"), ("llama", "PADDING_CAUSAL")]
)
def test_a_step_in_bfloat16_attends_by_cudnn(hopper, name, mask_type):
    text = program(make_model(name), right_padded=True)
    assert calls(text) == ["Softmax", "SoftmaxBackward"]
    assert set(re.findall(r"mask_type\\22: \\22([A-Z_]+)", text)) == {mask_type}
    # padding may stand anywhere: the mask is added
    assert calls(program(make_model(name))) == [
        "ScaleBiasSoftmax",
        "ScaleBiasSoftmaxBackward",
    ]


@pytest.mark.parametrize(
    "options",
    [{"dtype": "float32"}, {"kind": "xla"}],
)
def test_other_steps_do_not(hopper, options):
    assert calls(program(make_model("llama"), **options)) == []


def test_dropped_probabilities_stay_with_xla(hopper):
    model = make_model("bert", dropout=0.1)
    with cudnn.attentions_traced() as seen:
        assert calls(program(model, right_padded=True)) == []
    assert cudnn.describe_attention(seen).startswith("attention: XLA, as probabilities")
    with pytest.raises(InputError, match="drop out"):
        program(model, kind="cudnn")


def test_recomputed_blocks_attend_by_cudnn_again(hopper):
    """A block that keeps nothing runs the kernel once more; what it keeps is known."""
    model = make_model("llama")
    rules = [(r"model/layers/\d+", "nothing")]
    rematted = model._replace(apply_fn=with_remat(model.apply_fn, rules))
    text = program(rematted, right_padded=True)
    assert calls(text) == ["Softmax", "Softmax", "SoftmaxBackward"]


def in_place_of_the_kernel(query, key, value, bias, _, lengths, *__, **options):
    """What the call computes, of the rows and heads that a device has."""
    mask_type, (has_bias, _) = options["mask_type"], options["variadic_args"]
    wide = [x.astype(jnp.float32) for x in (query, key, value, bias)]
    mixed = jax.nn.dot_product_attention(
        *wide[: 4 if has_bias else 3],
        scale=options["scale"],
        is_causal="CAUSAL" in mask_type.name,
        key_value_seq_lengths=lengths if "PADDING" in mask_type.name else None,
    ).astype(query.dtype)
    if not options.get("is_training"):
        return [mixed]
    return [mixed, jnp.zeros((*mixed.shape[:1], *mixed.shape[2:0:-1]), jnp.float32)]


def in_place_of_its_derivative(query, key, value, bias, *more, **options):
    def forward(*arrays):
        return in_place_of_the_kernel(*arrays, *more[:6], **options)[0]

    _, vjp = jax.vjp(forward, query, key, value, bias)
    grads = vjp(more[-1])
    return grads if options["variadic_args"][1] else grads[:3]


@pytest.fixture
def on_cpus(hopper):
    """The call of cuDNN runs on CPUs, which shows how it is shared out."""
    for primitive, fn in (
        (of_jax._dot_product_attention_fwd_p, in_place_of_the_kernel),
        (of_jax._dot_product_attention_bwd_p, in_place_of_its_derivative),
    ):
        rule = mlir.lower_fun(fn, multiple_results=True)
        mlir.register_lowering(primitive, rule, platform="cpu")


@pytest.mark.parametrize("right_padded", [False, True])
@pytest.mark.parametrize("sizes", [(4, 1), (2, 2)])
def test_over_devices_rows_and_heads_are_shared_out(on_cpus, sizes, right_padded):
    """With masks and lengths of their own; the same loss and gradients as on one."""
    axes = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh(sizes, ("data", "tensor"), axis_types=axes)
    tokens = jax.random.normal(jax.random.key(0), (4, L, H * K), jnp.bfloat16)
    weights = {
        name: jax.random.normal(jax.random.key(i), (H * K, h, K), jnp.bfloat16) / 4
        for i, (name, h) in enumerate({"query": H, "key": G, "value": G}.items())
    }
    real = (np.arange(L)[None] < np.array([[8], [5], [1], [6]])).astype(np.int32)

    def loss(weights, tokens, real, attend):
        mask = causal_mask({"input_ids": real, "attention_mask": real})
        query, key, value = (
            jnp.einsum("bld,dhk->blhk", tokens, weights[name])
            for name in ("query", "key", "value")
        )
        mixed = attend(query, Seen(key, value, mask, None)).astype(jnp.float32)
        return jnp.sum(jnp.where(real[..., None, None] > 0, jnp.sin(mixed), 0))

    def by_cudnn(query, seen):
        given = cudnn.fused_arguments(query, seen, right_padded=right_padded)
        return jax.nn.dot_product_attention(
            query, *seen[:2], scale=0.3, implementation="cudnn", **given
        )

    def by_xla(query, seen):
        return attend_plainly(query, seen, scale=0.3)

    rows, heads = PartitionSpec("data"), PartitionSpec(None, "tensor")
    places = [NamedSharding(mesh, spec) for spec in (heads, rows, rows)]
    gradient = functools.partial(jax.value_and_grad, argnums=0)
    shared = jax.jit(
        gradient(functools.partial(loss, attend=by_cudnn)), in_shardings=tuple(places)
    )
    alone = jax.jit(gradient(functools.partial(loss, attend=by_xla)))
    theirs, ours = shared(weights, tokens, real), alone(weights, tokens, real)
    for a, b in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(b, a, atol=0.03 * np.abs(a).max())


def test_the_program_for_a_cpu_is_the_plain_one(hopper, monkeypatch):
    """Though traced where there is a GPU: the same work and the same memory."""
    model = make_model("llama")
    params = jax.tree.map(lambda x: x.astype("bfloat16"), model.params)
    batch = {"input_ids": jnp.ones((2, 16), jnp.int32)}

    def compiled():
        def loss(params):
            logits = model.apply_fn(params, batch, key=None)
            return logits.sum(dtype=jnp.float32)

        return jax.jit(jax.value_and_grad(loss)).lower(params).compile()

    both = compiled()
    monkeypatch.setattr(cudnn, "cuda_capability", lambda: None)
    alone = compiled()
    for a, b in zip(*map(jax.tree.leaves, (both(params), alone(params))), strict=True):
        np.testing.assert_array_equal(a, b)
    memory = [c.memory_analysis().temp_size_in_bytes for c in (both, alone)]
    assert memory[0] == memory[1]
    assert both.cost_analysis()["flops"] == alone.cost_analysis()["flops"]


# --- the caller -----------------------------------------------------------------------
def test_cudnn_is_refused_where_it_is_not(monkeypatch):
    monkeypatch.setattr(cudnn, "cuda_capability", lambda: None)
    cudnn.check_attention("auto", "float32")
    with pytest.raises(InputError, match="no NVIDIA GPU"):
        cudnn.check_attention("cudnn", "bfloat16")
    monkeypatch.setattr(cudnn, "cuda_capability", lambda: (9, 0))
    cudnn.check_attention("cudnn", "bfloat16")
    with pytest.raises(InputError, match="computes in float32"):
        cudnn.check_attention("cudnn", "float32")


def test_one_query_alone_is_no_offence(hopper):
    """The last block of a classifier has one, that of the first token."""
    model = make_model("bert", task="sequence_classification")
    with cudnn.attentions_traced() as seen:
        assert calls(program(model, kind="cudnn", right_padded=True)) == []
    assert seen == {cudnn.ALONE}


def test_what_is_traced_is_told(hopper):
    with cudnn.attentions_traced() as seen:
        program(make_model("bert"), right_padded=True)
    assert cudnn.describe_attention(seen) == "attention: cuDNN"


# --- on a GPU -------------------------------------------------------------------------
needs_gpu = pytest.mark.skipif(
    jax.default_backend() != "gpu" or cudnn.cuda_capability() is None,
    reason="no CUDA device with cuDNN; run JAX_PLATFORMS=cuda pytest -n 0 of this file",
)


@needs_gpu
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("name", MASKS)
def test_cudnn_computes_what_xla_does(name, biased):
    """In bfloat16, 8 bits of fraction: within 2 % of the largest value and gradient."""
    make, right_padded, _ = MASKS[name]
    mask, bias = make(), None
    if biased:
        num_keys = L if mask is None else mask.allowed.shape[-1]
        bias = jax.random.normal(jax.random.key(2), (1, H, L, num_keys))
    query, seen = make_seen(mask, bias, dtype=jnp.bfloat16)
    real = jnp.asarray(LENGTHS > 0)[:, None, None, None]
    if mask is not None and mask.causal:  # rows that see nothing differ
        real = real & mask.allowed.any(axis=-1)[:, 0, :, None, None]

    def loss(arrays, kind):
        query, key, value, bias = arrays
        with_choice = cudnn.with_attention(
            lambda params, batch: attend_plainly(
                query, Seen(key, value, mask, bias), scale=0.3
            ),
            kind,
            right_padded=right_padded,
        )
        mixed = with_choice({}, {})
        mixed = jnp.where(real, mixed, 0).astype(jnp.float32)
        return jnp.sum(jnp.sin(mixed)), mixed

    arrays = (query, seen.key, seen.value, bias)
    by = {
        kind: jax.jit(jax.grad(functools.partial(loss, kind=kind), has_aux=True))(
            arrays
        )
        for kind in ("xla", "cudnn")
    }
    for a, b in zip(*map(jax.tree.leaves, by.values()), strict=True):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(b, a, atol=0.02 * np.abs(a).max() + 1e-6)
