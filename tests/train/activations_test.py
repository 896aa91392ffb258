# SPDX-License-Identifier: Apache-2.0
"""A tiny BERT with dropout learns from rows of tokens, cached and not."""

import itertools

import jax
import numpy as np
import pytest

import jft
from jft import data, partition, train
from jft.optim import make_optimizer, top_down
from jft.tasks.classification import make_loss
from jft.types import HIDDEN, InputError, Interrupted
from tests.data.batches.token_rows import ClassFields, Lines

LAYERS = 3
EVERY = 5  # steps between two openings
BERT = {
    "model_type": "bert",
    "vocab_size": 6000,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="module")
def model():
    return make_model(LAYERS)


def make_model(num_layers):
    return jft.init_model(
        {**BERT, "num_hidden_layers": num_layers},
        key=jax.random.key(0),
        task="sequence_classification",
        class_names=("a", "b", "c"),
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    return data.tokenize(Lines(37), ClassFields(), cache_dir=folder)


def make_loader(table, num_lengths=2):
    return data.make_token_loader(
        table,
        batching="length",
        global_batch_size=8,
        seed=0,
        num_lengths=num_lengths,
        max_lengths={"input": 41},
    )


def make_cache(model, table, folder, **options):
    rows = train.Rows(
        name=repr(table),
        batches=data.make_eval_batches(table, global_batch_size=8, num_lengths=2),
        num_rows=len(table),
        lengths=table.lengths,
        padding=table.padding,
    )
    return train.ActivationCache(
        model.prefix_fn,
        {"train": rows},
        folder=folder,
        layer_index=model.layer_index,
        **options,
    )


def run(model, table, cache, boundaries=(2, 3)):
    """Losses of a run that opens a layer every few steps, and its reports.

    All rows are of one length: each phase is one program.
    """
    open_at = top_down(model.num_layers, every=EVERY)
    num_steps = EVERY * (model.num_layers + 2)
    labels = partition.label_params(model.params, [(".*", "all")])
    tx = make_optimizer(
        labels, learning_rate=1e-3, layer_index=model.layer_index, open_at=open_at
    )
    step = train.make_train_step(
        model.apply_fn,
        make_loss(),
        tx,
        labels,
        group_of=model.layer_index,
        prefix_fn=model.prefix_fn,
    )
    loader = make_loader(table, num_lengths=1)

    def start_phase(step, groups, state):
        nonlocal loader
        if cache is None:
            return False
        kept = [b for b in boundaries if b <= min(groups)]
        cache.keep(state.params, {"train": kept})
        rows = cache.table("train")
        loader = make_loader(table if rows is None else rows, num_lengths=1)
        return True

    losses = []
    result = train.fit(
        train.init_state(model.params, labels, tx=tx, key=jax.random.key(1)),
        step,
        batches=lambda step: loader.batches(step),
        num_steps=num_steps,
        open_groups_at=train.groups_at(train.phases(open_at, num_steps)),
        start_phase=start_phase,
        hooks=[lambda m: m.metrics and losses.append(float(m.metrics["loss"]))],
    )
    return np.array(losses), result


def test_a_cached_run_is_the_uncached_one(table, tmp_path):
    model = make_model(2)
    cache = make_cache(model, table, tmp_path / "kept")
    expected, plain = run(model, table, None)
    losses, cached = run(model, table, cache)
    assert len(losses) == EVERY * 4
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-5)
    assert cache.num_computed == 2 * len(table)
    assert cache.boundary("train") == 0  # all layers move at the end
    flops = [[p.step_flops for p in result.phases] for result in (cached, plain)]
    share = np.array(flops[0]) / flops[1]
    assert (share[:2] < [0.1, 0.85]).all()  # the head alone; the upper layer with it
    np.testing.assert_allclose(share[2:], 1, rtol=0.01)


def test_open_layers_drop_out_and_frozen_ones_do_not(model, table, tmp_path):
    cache = make_cache(model, table, tmp_path / "kept")
    cache.keep(model.params, {"train": [3]})
    batch = next(make_loader(cache.table("train")).batches())
    name = f"{HIDDEN}3"
    assert set(batch) == {
        "input_ids", "attention_mask", "targets", "index", "loss_mask", name
    }  # fmt: skip
    plain = next(make_loader(table).batches())
    np.testing.assert_array_equal(batch["index"], plain["index"])
    np.testing.assert_array_equal(batch["input_ids"], plain["input_ids"])
    whole = model.prefix_fn(model.params, plain, stop=3)[name]
    real = plain["attention_mask"] > 0
    np.testing.assert_allclose(batch[name][real], whole[real], rtol=1e-5, atol=1e-5)
    draws = [
        model.apply_fn(model.params, batch, key=jax.random.key(i)) for i in (0, 0, 1)
    ]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.allclose(draws[0], draws[2])


def test_what_is_there_is_read_again_unless_something_below_changed(
    model, table, tmp_path
):
    def computed(params, boundary=2, **options):
        cache = make_cache(model, table, tmp_path / "kept", **options)
        cache.keep(params, {"train": [boundary]})
        return cache.num_computed, cache.num_found

    new, found = (len(table), 0), (0, len(table))
    assert computed(model.params) == new
    assert computed(model.params) == found
    above = jax.tree.map(lambda x: x, model.params)
    above["classifier"]["bias"] = above["classifier"]["bias"] + 1
    assert computed(above) == found
    assert computed(model.params, dtype=jax.numpy.bfloat16) == new
    assert computed(model.params, facts="another model") == new
    below = jax.tree.map(lambda x: x, model.params)
    layer = below["bert"]["encoder"]["layer"]["0"]["output"]["dense"]
    layer["bias"] = layer["bias"] + 1e-6
    assert computed(below) == new
    assert computed(below) == found
    (file,) = (tmp_path / "kept" / "train-2").glob("*/hidden@2.values")
    content = bytearray(file.read_bytes())
    content[7] ^= 1
    file.write_bytes(content)
    assert computed(below) == new
    assert computed(below, boundary=3) == new


@pytest.mark.parametrize("after", [0, 2])
def test_a_stop_leaves_nothing_half_written(model, table, tmp_path, after):
    polls = itertools.count()
    cache = make_cache(
        model, table, tmp_path / "kept", stop_requested=lambda: next(polls) >= after
    )
    with pytest.raises(Interrupted):
        cache.keep(model.params, {"train": [1, 2]})
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert cache.table("train") is None


def test_what_no_longer_holds_is_removed(model, table, tmp_path):
    cache = make_cache(model, table, tmp_path / "kept")
    cache.keep(model.params, {"train": [1, 2]})
    size = sum(path.stat().st_size for path in tmp_path.rglob("hidden*.values"))
    assert size == cache.most_bytes == 2 * cache.bytes_per_boundary(model.params)
    assert cache.boundary("train") == 2
    cache.keep(model.params, {"train": [1]})
    assert cache.boundary("train") == 1
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["train-1"]
    cache.close()
    assert not list(tmp_path.iterdir())


def test_bfloat16_takes_half_the_bytes(model, table, tmp_path):
    kept = {}
    for dtype in ("float32", "bfloat16"):
        cache = make_cache(model, table, tmp_path / dtype, dtype=dtype)
        cache.keep(model.params, {"train": [2]})
        kept[dtype] = cache.table("train")[5][f"{HIDDEN}2"], cache.most_bytes
    assert kept["bfloat16"][1] * 2 == kept["float32"][1]
    half = kept["bfloat16"][0].astype(np.float32)
    np.testing.assert_allclose(half, kept["float32"][0], rtol=1e-2, atol=1e-2)


def test_batches_from_above_an_open_layer_are_refused(model, table, tmp_path):
    cache = make_cache(model, table, tmp_path / "kept")
    cache.keep(model.params, {"train": [3]})
    batch = next(make_loader(cache.table("train")).batches())
    with pytest.raises(InputError, match="up to the boundary 3, but the layer 2"):
        model.prefix_fn(model.params, batch, stop=2)


def test_models_that_hand_on_several_arrays_are_told_apart(model, table):
    batch = data.make_eval_batches(table, global_batch_size=4).batch_fn(0)
    assert train.is_one_array(model.prefix_fn, model.params, batch, num_layers=LAYERS)
    t5 = jft.init_model(
        {
            "model_type": "t5",
            "vocab_size": 60,
            "d_model": 16,
            "d_kv": 8,
            "num_heads": 2,
            "d_ff": 32,
            "num_layers": 1,
            "num_decoder_layers": 1,
        },
        key=jax.random.key(0),
        task="seq2seq_lm",
    )
    text = {"input_ids": np.ones((2, 4), np.int32), "labels": np.ones((2, 3), np.int32)}
    assert not train.is_one_array(t5.prefix_fn, t5.params, text, num_layers=2)
