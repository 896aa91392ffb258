# SPDX-License-Identifier: Apache-2.0
"""Multipliers have the published values, and the chain applies what they say."""

import re

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jft import paths
from jft.optim import (
    PRESETS,
    label_multiplier,
    layer_multiplier,
    make_optimizer,
    product,
    scale_by_path,
)
from jft.partition import describe
from jft.types import InputError

NUM_LAYERS, DECAY = 12, 0.75
FINAL_NORM = r"vit/layernorm/.*"


def vit_layer_index(path):
    if path.startswith("vit/embeddings/"):
        return 0
    if block := re.match(r"vit/encoder/layer/(\d+)/", path):
        return int(block[1]) + 1
    if path.startswith("vit/layernorm/"):
        return NUM_LAYERS
    if path.startswith("classifier/"):
        return NUM_LAYERS + 1
    raise KeyError(path)


def block(i):
    return f"vit/encoder/layer/{i}/attention/attention/query/kernel"


# DESIGN.md section 3: powers of the decay for embeddings, block i, final norm, head.
GOLDEN = {
    "timm": (DECAY, 13, lambda i: 12 - i, 1, 0),
    "beit": (DECAY, 13, lambda i: 12 - i, 0, 0),
    "electra": (DECAY, 14, lambda i: 13 - i, 2, 0),
    "ulmfit": (1 / 2.6, 13, lambda i: 12 - i, 1, 0),
}


def test_every_preset_is_in_the_table():
    assert GOLDEN.keys() == PRESETS.keys()


@pytest.mark.parametrize("preset", PRESETS)
def test_golden_multipliers_of_a_12_block_vit(preset):
    decay, embeddings, of_block, final_norm, head = GOLDEN[preset]
    multiplier = layer_multiplier(
        None if preset == "ulmfit" else decay,
        vit_layer_index,
        num_layers=NUM_LAYERS,
        preset=preset,
        final_norm=FINAL_NORM,
    )
    assert multiplier("vit/embeddings/cls_token") == pytest.approx(decay**embeddings)
    for i in range(NUM_LAYERS):
        assert multiplier(block(i)) == pytest.approx(decay ** of_block(i))
    assert multiplier("vit/layernorm/scale") == pytest.approx(decay**final_norm)
    assert multiplier("classifier/bias") == decay**head == 1.0


def test_the_number_timm_prints():
    multiplier = layer_multiplier(0.75, vit_layer_index, num_layers=12)
    assert multiplier("vit/embeddings/cls_token") == pytest.approx(0.02376, abs=5e-6)


def test_no_decay_is_one_everywhere():
    multiplier = layer_multiplier(None, vit_layer_index, num_layers=NUM_LAYERS)
    assert multiplier("vit/embeddings/cls_token") == multiplier(block(3)) == 1.0


LABELS = {"a": "body", "b": {"c": "head", "d": "frozen", "e": "head"}}


def test_each_label_has_its_multiplier_and_the_others_one():
    multiplier = label_multiplier({"head": 10.0}, LABELS)
    found = {path: multiplier(path) for path in ("a", "b/c", "b/d", "b/e")}
    assert found == {"a": 1.0, "b/c": 10.0, "b/d": 1.0, "b/e": 10.0}


@pytest.mark.parametrize("name", ["heads", "frozen"])
def test_a_multiplier_of_nothing_trainable_is_refused(name):
    with pytest.raises(InputError, match=rf"\['{name}'\].*\['body', 'head'\]"):
        label_multiplier({name: 2.0}, LABELS)


def test_updates_are_scaled_and_keep_dtype_and_holes():
    tx = scale_by_path({"a": 0.25, "b/c": np.float64(0.5), "h": 1}.__getitem__)
    updates = {"a": jnp.ones(2), "b": {"c": jnp.ones(2, jnp.bfloat16), "d": None}}
    updates["h"] = jnp.ones(())
    state = tx.init(updates)
    scaled, new_state = tx.update(updates, state)
    np.testing.assert_array_equal(scaled["a"], [0.25, 0.25])
    np.testing.assert_array_equal(scaled["b"]["c"].astype(float), [0.5, 0.5])
    assert scaled["b"]["c"].dtype == jnp.bfloat16
    assert scaled["b"]["d"] is None
    assert scaled["h"].dtype == jnp.float32
    assert state == new_state == optax.EmptyState()


def test_unknown_paths_are_listed_not_defaulted():
    multiplier = layer_multiplier(0.75, vit_layer_index, num_layers=NUM_LAYERS)
    tx, zero = scale_by_path(multiplier), jnp.zeros(())
    with pytest.raises(InputError, match=r"\['pooler/bias', 'vit/reg_token'\]"):
        tx.init({"vit": {"reg_token": zero}, "pooler": {"bias": zero}})


def test_what_the_table_prints_is_what_the_chain_applies():
    labels = {"a": "body", "b": {"c": "body"}, "h": "head"}
    params = paths.map_with_path(lambda path, _: jnp.ones(2), labels)
    depth = {"a": 0, "b/c": 1, "h": 2}.__getitem__
    rate = product(
        layer_multiplier(0.5, depth, num_layers=1),
        label_multiplier({"head": 3.0, "body": 0.75}, labels),
    )
    tx = make_optimizer(
        labels, optimizer=optax.identity(), learning_rate=1.0, multiplier=rate
    )
    applied = paths.flatten(tx.update(params, tx.init(params), params)[0])
    table = describe(params, labels, layer_index=depth, multiplier=rate)
    printed = {x.split()[1]: float(x.split()[-4]) for x in table.splitlines()[2:5]}
    assert printed == {"a": 0.1875, "b/c": 0.375, "h": 3.0}
    for path, factor in printed.items():
        np.testing.assert_array_equal(applied[path], [-factor] * 2)


@pytest.mark.parametrize("layer", [-1, 14, None])
def test_a_layer_out_of_range_is_an_error(layer):
    multiplier = layer_multiplier(0.75, lambda path: layer, num_layers=12)
    with pytest.raises(InputError, match=rf"gives {layer} for 'x'.* to 13 \(head\)"):
        multiplier("x")


@pytest.mark.parametrize(
    ("decay", "preset", "message"),
    [
        (
            0.75,
            "tim",
            r"unknown .* 'tim'; known: \['beit', 'electra', 'timm', 'ulmfit'",
        ),
        (0.0, "timm", "expected a number in"),
        (1.5, "electra", "expected a number in"),
        (0.75, "beit", "give final_norm"),
    ],
)
def test_bad_arguments(decay, preset, message):
    with pytest.raises(InputError, match=message):
        layer_multiplier(decay, vit_layer_index, num_layers=12, preset=preset)
