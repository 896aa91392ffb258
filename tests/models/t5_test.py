# SPDX-License-Identifier: Apache-2.0
"""T5: what its versions mean by the same config.json, and its buckets of distances."""

import importlib.util

import numpy as np
import pytest

import jft
from jft.models.t5_attention import buckets_by_distance
from jft.models.t5_config import config_from_dict, settle_config
from jft.types import InputError
from tests.models import peer
from tests.models.parity_test import compare_both_ways
from tests.models.table import TABLE

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="torch is absent: pip install -e '.[parity]'",
)


@needs_torch
def test_checkpoint_of_v1_1_has_an_output_layer_of_its_own(tmp_path):
    # transformers 5 makes no such model, but unties where it reads one
    from safetensors.numpy import load_file, save_file

    row, task = TABLE["t5"], "seq2seq_lm"
    changes = {"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"}
    config = peer.full_config("t5", row, task, changes)
    shapes = peer.write_folder(tmp_path / "theirs", "t5", config, task)
    tensors = load_file(tmp_path / "theirs" / peer.WEIGHTS)
    assert "lm_head.weight" not in tensors
    own = peer.draw("lm_head.weight", tensors["shared.weight"].shape)
    save_file(
        {**tensors, "lm_head.weight": own},
        tmp_path / "theirs" / peer.WEIGHTS,
        metadata={"format": "pt"},
    )
    shapes["lm_head.weight"] = own.shape
    batch = peer.make_batch(row, config, task)
    compare_both_ways(tmp_path / "theirs", tmp_path / "ours", "t5", task, batch, shapes)
    model = jft.load(tmp_path / "ours")
    assert "lm_head" in model.params
    assert model.config["tie_word_embeddings"] is False


@pytest.mark.parametrize(
    ("config", "keys", "scaled", "tied"),
    [
        ({}, [], True, True),
        ({}, ["lm_head.weight"], True, True),  # a copy that torch saved
        ({"tie_word_embeddings": False}, ["lm_head.weight"], False, False),
        ({"tie_word_embeddings": False}, [], False, True),
        # as transformers 5 writes v1.1
        (
            {"tie_word_embeddings": True, "scale_decoder_outputs": False},
            ["lm_head.weight"],
            False,
            False,
        ),
    ],
)
def test_keys_tell_whether_the_output_layer_is_tied(config, keys, scaled, tied):
    settled = config_from_dict(settle_config(config, keys))
    assert (settled.scaled, settled.tie_word_embeddings) == (scaled, tied)


def test_activation_is_told_by_the_projection():
    for name, activation, gated in (
        ("gelu", "gelu", False),
        ("gated-gelu", "gelu_new", True),
        ("gated-silu", "silu", True),
    ):
        config = config_from_dict({"feed_forward_proj": name})
        assert (config.activation, config.gated) == (activation, gated)
    assert config_from_dict({"dense_act_fn": "gelu_new"}).activation == "gelu_new"


@pytest.mark.parametrize(
    "config",
    [
        {"feed_forward_proj": "gated-mish2"},
        {"feed_forward_proj": "half-relu"},
        {"dense_act_fn": "mish2"},
        {"is_decoder": True},
        {"tie_encoder_decoder": True},
        {"num_decoder_layers": 0},
        {"relative_attention_num_buckets": 3},
        {"relative_attention_max_distance": 16},
        {"dropout_rate": 1.0},
    ],
)
def test_value_that_cannot_be_honoured_is_named(config):
    with pytest.raises(InputError, match=next(iter(config))):
        config_from_dict(config)


def test_general_names_overrule():
    config = config_from_dict(
        {"hidden_size": 32, "d_model": 16, "num_hidden_layers": 3}
    )
    assert (config.d_model, config.num_layers, config.decoder_layers) == (32, 3, 3)


@needs_torch
@pytest.mark.parametrize(("num_buckets", "farthest"), [(32, 128), (32, 64), (6, 5)])
@pytest.mark.parametrize("causal", [True, False])
def test_every_distance_has_torchs_bucket(num_buckets, farthest, causal):
    import torch
    from transformers.models.t5.modeling_t5 import T5Attention

    distances = np.arange(2 * farthest)
    theirs = T5Attention._relative_position_bucket(
        -torch.from_numpy(distances),
        bidirectional=not causal,
        num_buckets=num_buckets,
        max_distance=farthest,
    )
    ours = buckets_by_distance(
        farthest, num_buckets=num_buckets // (1 if causal else 2)
    )
    np.testing.assert_array_equal(ours[np.minimum(distances, farthest)], theirs)
