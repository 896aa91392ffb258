# SPDX-License-Identifier: Apache-2.0
"""The families of one decoder: which configs they refuse, old and new names, starts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jft.models import get_family
from jft.params import init_params
from jft.types import InputError
from tests.models import peer
from tests.models.table import TABLE

LINEAR = {"rope_type": "linear", "factor": 2.0}


def read(model_type, **changes):
    return get_family(model_type).config_from_dict(
        {**TABLE[model_type].config, **changes}
    )


@pytest.mark.parametrize(
    ("model_type", "changes", "message"),
    [
        ("llama", {"pretraining_tp": 2}, "pretraining_tp is 2"),
        ("llama", {"is_causal": False}, "is_causal is False"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config is"),
        ("llama", {"token_classification_bias": False}, "token_classification_bias"),
        ("llama", {"num_attention_heads": 5}, "hidden_size is 24"),
        ("llama", {"num_key_value_heads": 3}, "num_key_value_heads = 3"),
        ("llama", {"head_dim": 5}, "5 dimensions of a head turn"),
        ("llama", {"pad_token_id": 43}, "pad_token_id is 43"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ("llama", {"rope_scaling": {"rope_type": "axial"}}, "rope_type is 'axial'"),
        ("llama", {"rope_scaling": {"type": "linear"}}, "lack \\['factor'\\]"),
        (
            "qwen2",
            {"rope_parameters": {"full_attention": LINEAR}},
            "all its layers alike",
        ),
        ("mistral", {"layer_types": ["full_attention"] * 2}, "layer_types is"),
        ("qwen2", {"use_mrope": True}, "use_mrope is True"),
        ("qwen2", {"layer_types": ["full_attention"]}, "names 1 layers"),
        ("qwen3", {"layer_types": ["sliding_attention"] * 2}, "no sliding_window"),
        (
            "qwen3",
            {"layer_types": ["linear_attention"] * 2},
            "has \\['linear_attention'",
        ),
        (
            "gemma2",
            {"use_bidirectional_attention": True},
            "use_bidirectional_attention",
        ),
        ("gemma2", {"sliding_window": None}, "no sliding_window"),
        ("gemma3_text", {"attn_logit_softcapping": 5.0}, "attn_logit_softcapping is 5"),
        ("gemma3_text", {"rope_parameters": LINEAR}, "expected one mapping each"),
        ("phi3", {"attention_bias": True}, "attention_bias is True"),
        ("mistral", {"attention_bias": True}, "attention_bias is True"),
        ("phi3", {"rope_scaling": LINEAR}, "rope_type is 'linear'"),
        (
            "phi3",
            {"rope_scaling": {"type": "longrope", "short_factor": [1.0, 2.0, 3.0]}},
            "lack \\['long_factor'\\]",
        ),
        (
            "phi3",
            {
                "rope_scaling": {
                    "type": "su",
                    "short_factor": [1.0],
                    "long_factor": [1.0],
                }
            },
            "short_factor of rope_parameters has 1 numbers",
        ),
    ],
)
def test_unsupported_value_is_named(model_type, changes, message):
    with pytest.raises(InputError, match=message):
        read(model_type, **changes)


FACTORS = {"short_factor": [1.0, 2.0, 3.0], "long_factor": [2.0, 3.0, 4.0]}
LLAMA_3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@pytest.mark.parametrize(
    ("model_type", "old", "new"),
    [
        (
            "llama",
            {"rope_theta": 5.0, "rope_scaling": {"type": "linear", "factor": 2.0}},
            {"rope_parameters": {"rope_theta": 5.0, **LINEAR}},
        ),
        (
            "llama",
            {"rope_theta": 5.0, "rope_scaling": {"rope_type": "llama3", **LLAMA_3}},
            {"rope_parameters": {"rope_theta": 5, "rope_type": "llama3", **LLAMA_3}},
        ),
        ("qwen2", {"rope_theta": 5.0}, {"rope_parameters": {"rope_theta": 5.0}}),
        (
            "gemma3_text",
            {},
            {
                "rope_theta": None,
                "rope_local_base_freq": None,
                "rope_scaling": None,
                "sliding_window_pattern": 1,
                "layer_types": ["sliding_attention", "full_attention"],
                "rope_parameters": {
                    "sliding_attention": {"rope_theta": 20.0},
                    "full_attention": {"rope_type": "linear", "factor": 3.0}
                    | {"rope_theta": 50.0},
                },
            },
        ),
        (
            "phi3",
            {"rope_scaling": {"type": "yarn", **FACTORS}},
            {
                "rope_parameters": {
                    "rope_type": "longrope",
                    "original_max_position_embeddings": 9,  # not read: it is outside
                    **FACTORS,
                },
                "original_max_position_embeddings": 4096,
            },
        ),
    ],
)
def test_old_names_of_fields_are_read(model_type, old, new):
    assert read(model_type, **old) == read(model_type, **new)


def test_bidirectional_model_does_not_decode():
    config = read("gemma3_text", use_bidirectional_attention=True)
    module = get_family("gemma3_text").make_module(config, "causal_lm")
    batch = {
        "input_ids": jnp.ones((1, 1), jnp.int32),
        "cache_mask": jnp.ones((1, 4), jnp.int32),
        "cache_index": 0,
    }
    with pytest.raises(InputError, match="cannot decode one by one"):
        jax.eval_shape(lambda: module.init(jax.random.key(0), batch))


@pytest.mark.parametrize(("model_type", "norm"), [("llama", 1.0), ("gemma2", 0.0)])
def test_new_weights_start_as_in_transformers(model_type, norm):
    changes = {"num_hidden_layers": 1, "attention_bias": True}
    config = read(model_type, initializer_range=0.5, **changes)
    params = init_params(
        get_family(model_type), config, task="causal_lm", key=jax.random.key(0)
    )["model"]
    block = params["layers"]["0"]
    np.testing.assert_array_equal(block["input_layernorm"]["scale"], norm)
    np.testing.assert_array_equal(block["self_attn"]["o_proj"]["bias"], 0.0)
    np.testing.assert_array_equal(params["embed_tokens"]["embedding"][0], 0.0)
    for leaf in (
        block["mlp"]["up_proj"]["kernel"],
        params["embed_tokens"]["embedding"],
    ):
        assert 0.4 < np.std(leaf) < 0.6


def test_given_positions_are_used():
    """Positions twice as far apart are angles twice as fast."""
    ids = jnp.arange(4, 10)[None]
    fast = {"rope_scaling": {"rope_type": "linear", "factor": 0.5}}
    hidden = {}
    for name, changes, fields in (
        ("fast", fast, {}),
        ("far", {}, {"position_ids": 2 * jnp.arange(6)[None]}),
        ("plain", {}, {}),
    ):
        config = {**TABLE["llama"].config, **changes}
        module, params = peer.make_jft("llama", config, "base")
        batch = {"input_ids": ids, **fields}
        hidden[name] = jax.jit(module.apply)({"params": params}, batch)
    far, fast, plain = (
        hidden[k]["last_hidden_state"] for k in ("far", "fast", "plain")
    )
    np.testing.assert_allclose(far, fast, atol=1e-5)
    assert np.abs(far - plain).max() > 0.01
