# SPDX-License-Identifier: Apache-2.0
import re

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jft.optim import PRESETS, layer_multiplier, layerwise_lr_decay
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


def test_transform_scales_updates_and_keeps_dtype_holes_and_state():
    tx = layerwise_lr_decay(0.5, {"a": 0, "b/c": 1, "h": 2}.__getitem__, num_layers=1)
    updates = {"a": jnp.ones(2), "b": {"c": jnp.ones(2, jnp.bfloat16), "d": None}}
    updates["h"] = jnp.ones(())
    state = tx.init(updates)
    scaled, new_state = tx.update(updates, state)
    np.testing.assert_array_equal(scaled["a"], [0.25, 0.25])
    np.testing.assert_array_equal(scaled["b"]["c"].astype(float), [0.5, 0.5])
    assert scaled["b"]["c"].dtype == jnp.bfloat16
    assert scaled["b"]["d"] is None
    assert float(scaled["h"]) == 1.0
    assert state == new_state == optax.EmptyState()


def test_unknown_paths_are_listed_not_defaulted():
    tx = layerwise_lr_decay(0.75, vit_layer_index, num_layers=NUM_LAYERS)
    zero = jnp.zeros(())
    with pytest.raises(InputError, match=r"\['pooler/bias', 'vit/reg_token'\]"):
        tx.init({"vit": {"reg_token": zero}, "pooler": {"bias": zero}})


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
        (None, "timm", "expected a number in"),
        (0.0, "timm", "expected a number in"),
        (1.5, "electra", "expected a number in"),
        (0.75, "beit", "give final_norm"),
    ],
)
def test_bad_arguments(decay, preset, message):
    with pytest.raises(InputError, match=message):
        layer_multiplier(decay, vit_layer_index, num_layers=12, preset=preset)
