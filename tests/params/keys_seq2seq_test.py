# SPDX-License-Identifier: Apache-2.0
"""Where published encoder-decoders keep their tensors, under all the names they had."""

import pytest

from jft.models import MODELS
from jft.params import abstract_params, checkpoint_keys, find_keys
from jft.paths import flatten

SMALL = {
    "t5": {"num_layers": 1, "d_model": 8, "vocab_size": 9},
    "bart": {"encoder_layers": 1, "decoder_layers": 1, "d_model": 16},
    "marian": {"encoder_layers": 1, "decoder_layers": 1, "d_model": 16},
}


def find(model_type, task, extra=(), without=(), **changes):
    """Look for the model in its own keys, but for some, and those extra."""
    family = MODELS[model_type]
    config = family.config_from_dict({**SMALL[model_type], **changes})
    paths = flatten(abstract_params(family, config, task=task))
    keys = set(checkpoint_keys(family, task, paths).values())
    assert set(without) <= keys
    found = find_keys(family, task, paths, (keys | set(extra)) - set(without))
    return paths, found


@pytest.mark.parametrize(
    ("model_type", "prefix"), [("t5", ""), ("bart", "model."), ("marian", "model.")]
)
def test_words_under_every_name_that_torch_saved(model_type, prefix):
    copies = ["lm_head.weight"]
    copies += [f"{prefix}{side}.embed_tokens.weight" for side in ("encoder", "decoder")]
    paths, found = find(model_type, "seq2seq_lm", extra=copies)
    assert found.unused == ()
    assert found.keys.keys() == paths.keys()
    words = f"{prefix}shared.weight"
    assert found.keys[words.replace(".weight", "/embedding").replace(".", "/")] == words
    # one of the copies is enough
    _, found = find(model_type, "seq2seq_lm", extra=copies[2:], without=[words])
    assert copies[2] in found.keys.values()


def test_two_tables_of_marian_are_not_mixed_up():
    _, found = find(
        "marian",
        "seq2seq_lm",
        extra=["lm_head.weight"],
        share_encoder_decoder_embeddings=False,
    )
    assert found.unused == ()
    for side in ("encoder", "decoder"):
        path = f"model/{side}/embed_tokens/embedding"
        assert found.keys[path] == f"model.{side}.embed_tokens.weight"


def test_t5_has_no_distances_in_cross_attention():
    name = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    assert find("t5", "seq2seq_lm", extra=[name])[1].unused == ()


@pytest.mark.parametrize("task", ["sequence_classification", "question_answering"])
def test_t5s_backbone_is_found_behind_any_prefix(task):
    family = MODELS["t5"]
    config = family.config_from_dict(SMALL["t5"])
    paths = flatten(abstract_params(family, config, task=task))
    backbone = flatten(abstract_params(family, config, task="base"))
    for prefix in ("", "transformer."):
        keys = checkpoint_keys(family, "base", backbone).values()
        found = find_keys(family, task, paths, [prefix + key for key in keys])
        assert found.keys.keys() == backbone.keys()
        assert found.unused == ()


def test_fairseqs_version_is_no_tensor_of_bart():
    names = ["model.encoder.version", "model.decoder.version"]
    assert find("bart", "seq2seq_lm", extra=names)[1].unused == ()


def test_sinusoids_are_made_anew_and_learned_positions_are_read():
    names = [f"model.{side}.embed_positions.weight" for side in ("encoder", "decoder")]
    assert find("marian", "seq2seq_lm", extra=names)[1].unused == ()
    for model_type, task in (("bart", "seq2seq_lm"), ("marian", "base")):
        paths, found = find(model_type, task)
        learned = {path for path in paths if "embed_positions" in path}
        assert len(learned) == 2
        assert learned <= found.keys.keys()
