# SPDX-License-Identifier: Apache-2.0
"""Several texts in a row are answered as if each were alone, in every family."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jft.models import MODELS
from jft.models.packing import HEADS_OF_TOKENS
from jft.paths import flatten
from jft.train import softmax_cross_entropy
from jft.types import InputError
from tests.models import peer
from tests.models.table import TABLE

ROWS = ((4, 3, 3), (6, 2))  # lengths of the texts in each packed row
WIDTH = 12  # of a row, padding included: all the positions of the shortest table
LENGTHS = [length for row in ROWS for length in row]
TOLERANCE = 1e-5
TEXTS = "sequence_classification"
# windows, positions behind another padding id, frequencies by the longest position
VARIANTS = [
    ("deberta-v2", "p2c alone, the newer head, large eps"),
    ("llama", "rope dynamic, text longer than it knows"),
    ("modernbert", "every bias, untied, scaled by kind of layer"),
    ("phi3", "longrope on a long text, gelu, large eps"),
    ("qwen2", "layers by type, no block below the windows"),
    ("roberta", "untied, relu, large eps, padding 3"),
]


def packed_heads(name, changes=None):
    family = MODELS[name]
    config = family.config_from_dict({**TABLE[name].config, **(changes or {})})
    return [task for task in family.packed_heads(config) if task in family.heads]


PACKING = [name for name in TABLE if packed_heads(name)]
CASES = [
    *((name, packed_heads(name)[0], {}) for name in PACKING),
    *((name, *TABLE[name].variants[label]) for name, label in VARIANTS),
    *((name, "token_classification", {}) for name in ("bert", "llama")),
    *((name, TEXTS, {}) for name in PACKING if TEXTS in packed_heads(name)),
]


def make(name, task, changes=None):
    row = TABLE[name]
    config = peer.full_config(name, row, task, changes)
    module, params = peer.make_jft(name, config, task, row.scales)
    return module, params, make_batches(row, config)


def make_batches(row, config, *, seed=0):
    """The same texts one a row and packed, with fields and targets of each token."""
    rng = np.random.default_rng(seed)
    kinds = config.get("type_vocab_size", row.token_types) or 1
    pad = config.get("pad_token_id") or 0
    draws = {"input_ids": (4, config["vocab_size"], pad), "targets": (0, 4, 0)}
    if row.token_types:
        draws["token_type_ids"] = (0, kinds, 0)
    texts = [
        {name: rng.integers(low, high, n) for name, (low, high, _) in draws.items()}
        for n in LENGTHS
    ]
    for text in texts:
        text["position_ids"] = np.arange(len(text["input_ids"]))
    fill = {name: last for name, (_, _, last) in draws.items()}
    mask = np.array([np.arange(max(LENGTHS)) < n for n in LENGTHS])
    alone = {"attention_mask": mask.astype(np.int32)}
    for name in draws:
        alone[name] = lay_out([[t[name]] for t in texts], max(LENGTHS), fill[name])
    numbers = [[np.full(n, i + 1) for i, n in enumerate(row)] for row in ROWS]
    packed = {"segment_ids": lay_out(numbers, WIDTH, 0)}
    for name in texts[0]:
        rest = iter(texts)
        rows = [[next(rest)[name] for _ in row] for row in ROWS]
        packed[name] = lay_out(rows, WIDTH, fill.get(name, 0))
    return alone, packed


def ask_once_a_text(alone, packed, *, seed=0):
    """The same with one target a text, for a head that reads its first token."""
    targets = np.random.default_rng(seed).integers(0, 3, len(LENGTHS)).astype(np.int32)
    starts = [
        row * WIDTH + sum(lengths[:i])
        for row, lengths in enumerate(ROWS)
        for i in range(len(lengths))
    ]
    first = np.asarray(starts, np.int32)
    return (
        alone | {"targets": targets},
        packed | {"targets": targets, "first_tokens": first},
    )


def lay_out(rows, width, fill):
    """One behind the other in each row, then the filler: ``[B, width]``."""
    joined = [np.concatenate(parts) for parts in rows]
    padded = [np.pad(x, (0, width - len(x)), constant_values=fill) for x in joined]
    return np.stack(padded).astype(np.int32)


def answers(module, params, batch):
    """Outputs where there are targets, text after text, the loss, every gradient."""
    fields = {name: x for name, x in batch.items() if name != "targets"}
    real = batch.get("attention_mask", batch.get("segment_ids")) > 0
    if batch["targets"].ndim == 1:  # one a text
        real = np.ones(len(LENGTHS), bool)

    def loss_of(params):
        outputs = module.apply({"params": params}, fields)
        total, _ = softmax_cross_entropy(
            outputs, batch["targets"], loss_mask=jnp.asarray(real, jnp.float32)
        )
        return total, outputs

    grad_fn = jax.jit(jax.value_and_grad(loss_of, has_aux=True))
    (loss, outputs), grads = grad_fn(params)
    assert bool(jnp.isfinite(outputs).all())  # at padding too
    return np.asarray(outputs)[real], float(loss), flatten(grads)


@pytest.mark.parametrize(("name", "task", "changes"), CASES)
def test_packed_texts_are_what_they_are_alone(name, task, changes):
    module, params, (alone, packed) = make(name, task, changes)
    if task == TEXTS:
        alone, packed = ask_once_a_text(alone, packed)
    outputs, loss, grads = answers(module, params, packed)
    expected, expected_loss, expected_grads = answers(module, params, alone)
    assert 0.3 < expected.std() < 3
    np.testing.assert_allclose(outputs, expected, atol=TOLERANCE)
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    for path, grad in grads.items():
        wanted = np.asarray(expected_grads[path])
        scale = max(1.0, float(np.abs(wanted).max()))
        np.testing.assert_allclose(
            grad / scale, wanted / scale, atol=TOLERANCE, err_msg=path
        )


def test_families_that_do_not_pack_are_known():
    encoder_decoders = {name for name, row in TABLE.items() if row.encoder_decoder}
    assert set(TABLE) - set(PACKING) == encoder_decoders
    assert packed_heads("deberta-v2", {"conv_kernel_size": 3}) == []
    assert MODELS["vit"].packed_heads(None) == ()


def trace(name, task, batch, changes=None):
    module, params, _ = make(name, task, changes)
    fields = {n: x for n, x in batch.items() if n != "targets"}
    jax.eval_shape(lambda p: module.apply({"params": p}, fields), params)


def test_last_block_of_packed_rows_asks_for_the_first_tokens_alone():
    module, params, batches = make("bert", TEXTS)
    _, packed = ask_once_a_text(*batches)
    run = functools.partial(module.apply, {"params": params}, packed)
    below = run(stop=module.num_layers())
    assert below.shape[:2] == (len(ROWS), WIDTH)
    last = run(hidden=below, start=module.num_layers(), stop=module.num_layers() + 1)
    assert last.shape[:2] == (len(LENGTHS), 1)
    again = run(hidden=last, start=module.num_layers() + 1)
    np.testing.assert_allclose(again, run(), atol=1e-6)


@pytest.mark.parametrize(
    "task", sorted(set(MODELS["bert"].heads) - {*HEADS_OF_TOKENS, TEXTS})
)
def test_head_that_answers_once_a_row_refuses_packed_rows(task):
    packed = make("bert", "masked_lm")[2][1]
    with pytest.raises(
        InputError, match=f"'{task}' answers once a row.*one text a row"
    ):
        trace("bert", task, packed)


def test_packed_rows_that_cannot_be_exact_are_refused():
    packed = make("bert", "masked_lm")[2][1]
    bare = {name: x for name, x in packed.items() if name != "position_ids"}
    with pytest.raises(InputError, match=r"no position_ids.*count from 0"):
        trace("bert", "masked_lm", bare)
    with pytest.raises(InputError, match=r"reads the first token.*first_tokens"):
        trace("bert", TEXTS, packed)
    decoding = {
        **packed, "cache_mask": np.ones(packed["segment_ids"].shape), "cache_index": 0,
    }  # fmt: skip
    with pytest.raises(InputError, match="texts are written one a row"):
        trace("llama", "causal_lm", decoding)
    with pytest.raises(InputError, match="conv_kernel_size"):
        trace("deberta-v2", "masked_lm", packed, {"conv_kernel_size": 3})
    for name in ("t5", "bart"):
        with pytest.raises(InputError, match="encoder-decoder reads one text"):
            trace(
                name, "seq2seq_lm", {**packed, "decoder_input_ids": packed["input_ids"]}
            )
