# SPDX-License-Identifier: Apache-2.0
"""BART, mBART and Marian: what they refuse, and what starts the decoder's text."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jft
from jft.models import MODELS
from jft.models.positions import sinusoids
from jft.types import InputError
from tests.models import peer
from tests.models.table import TABLE

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="torch is absent: pip install -e '.[parity]'",
)


@pytest.mark.parametrize(
    ("model_type", "config"),
    [
        ("bart", {"encoder_layerdrop": 0.1}),
        ("bart", {"decoder_layerdrop": 0.1}),
        ("bart", {"is_decoder": True}),
        ("bart", {"normalize_before": True}),
        ("bart", {"add_final_layer_norm": True}),
        ("bart", {"static_position_embeddings": True}),
        ("bart", {"decoder_attention_heads": 5}),
        ("bart", {"pad_token_id": 50265}),
        ("mbart", {"normalize_before": False}),
        ("mbart", {"add_final_layer_norm": False}),
        ("marian", {"normalize_embedding": True}),
        ("marian", {"static_position_embeddings": False}),
        ("marian", {"decoder_vocab_size": 7}),
    ],
)
def test_value_that_cannot_be_honoured_is_named(model_type, config):
    with pytest.raises(InputError, match=next(iter(config))):
        MODELS[model_type].config_from_dict(config)


def test_general_names_overrule():
    config = MODELS["bart"].config_from_dict(
        {"num_hidden_layers": 3, "hidden_size": 32}
    )
    assert (config.encoder_layers, config.decoder_layers, config.d_model) == (3, 12, 32)


@needs_torch
@pytest.mark.parametrize("model_type", ["bart", "mbart"])
def test_decoder_reads_the_text_shifted_as_torch_shifts_it(model_type):
    import torch
    from transformers.models.bart.modeling_bart import shift_tokens_right as shift
    from transformers.models.mbart.modeling_mbart import shift_tokens_right as wrap

    config = MODELS[model_type].config_from_dict(TABLE[model_type].config)
    batch = {"input_ids": np.asarray([[5, 6, 7, 2], [8, 9, 2, 1]], np.int32)}
    ids = torch.from_numpy(batch["input_ids"].astype(np.int64))
    expected = shift(ids, 1, 2) if model_type == "bart" else wrap(ids, 1)
    ours = config.with_decoder_input(batch)["decoder_input_ids"]
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("model_type", ["marian", "t5"])
def test_a_translation_is_not_made_of_its_source(model_type):
    row = TABLE[model_type]
    config = peer.full_config(model_type, row, "seq2seq_lm")
    module, params = peer.make_jft(model_type, config, "seq2seq_lm")
    batch = {"input_ids": np.ones((1, 4), np.int32)}
    with pytest.raises(InputError, match="no decoder_input_ids"):
        jax.eval_shape(lambda p: module.apply({"params": p}, batch), params)


def test_classifier_refuses_a_second_text_of_another_length():
    config = peer.full_config("bart", TABLE["bart"], "sequence_classification")
    module, params = peer.make_jft("bart", config, "sequence_classification")
    batch = peer.make_batch(TABLE["bart"], config)
    with pytest.raises(InputError, match="leave out decoder_input_ids"):
        jax.eval_shape(lambda p: module.apply({"params": p}, batch), params)


@pytest.mark.parametrize("width", [8, 7])
def test_sinusoids_are_those_of_the_paper(width):
    table = sinusoids(20, width)
    rate = 10000 ** (-2 / width)
    half = (width + 1) // 2
    np.testing.assert_allclose(table[11, 1], np.sin(11 * rate), rtol=1e-5)
    np.testing.assert_allclose(table[11, half + 1], np.cos(11 * rate), rtol=1e-5)


def test_padding_starts_at_zero_and_output_bias_is_not_trained():
    config = {"model_type": "bart", **TABLE["bart"].config}
    model = jft.init_model(config, key=jax.random.key(0), task="seq2seq_lm")
    words = model.params["model"]["shared"]["embedding"]
    assert not jnp.any(words[1])
    assert jnp.all(jnp.any(words[2:] != 0, axis=1))
    batch = peer.make_batch(TABLE["bart"], config)

    def loss(params):
        return jnp.sum(jnp.sin(model.apply_fn(params, batch, key=None)))

    grads = jax.jit(jax.grad(loss))(model.params)
    assert not jnp.any(grads["final_logits_bias"])
    assert jnp.any(grads["model"]["shared"]["embedding"] != 0)


def test_vocabulary_grows_with_its_output_bias(tmp_path):
    for model_type in ("bart", "marian"):
        config = {"model_type": model_type, **TABLE[model_type].config}
        config |= {"decoder_vocab_size": 41} if model_type == "marian" else {}
        model = jft.init_model(config, key=jax.random.key(0), task="seq2seq_lm")
        jft.save(tmp_path / model_type, model)
        grown = jft.load(tmp_path / model_type, vocab_size=50, key=jax.random.key(1))
        assert grown.params["final_logits_bias"].shape == (1, 50)
        assert grown.params["model"]["shared"]["embedding"].shape == (50, 24)
