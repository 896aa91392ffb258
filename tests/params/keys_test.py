# SPDX-License-Identifier: Apache-2.0
"""The other names under which published checkpoints keep the same tensors."""

import pytest

from jft.models import get_family
from jft.params import abstract_params
from jft.params.keys import checkpoint_keys, find_keys
from jft.paths import flatten

TINY = {
    "vocab_size": 41,
    "num_hidden_layers": 1,
    "hidden_size": 24,
    "num_attention_heads": 3,
    "pad_token_id": 0,
}
WORDS = "embeddings.word_embeddings.weight"


def paths_and_keys(model_type, task, config=None):
    """Every parameter of a small model, and what transformers calls it."""
    family = get_family(model_type)
    model_config = family.config_from_dict(config or {})
    paths = flatten(abstract_params(family, model_config, task=task))
    return family, paths, checkpoint_keys(family, task, paths)


def test_gpt2_of_the_hub_has_no_prefix_and_keeps_its_masks():
    """The Hub's gpt2 is a bare backbone with buffers; others repeat the tied words."""
    family, paths, keys = paths_and_keys("gpt2", "causal_lm", {"n_layer": 1})
    bare = [key.removeprefix("transformer.") for key in keys.values()]
    buffers = ["h.0.attn.bias", "h.0.attn.masked_bias"]
    found = find_keys(family, "causal_lm", paths, [*bare, *buffers, "lm_head.weight"])
    assert found.keys.keys() == set(paths)
    assert found.keys["transformer/wte/embedding"] == "wte.weight"
    assert found.unused == ()


@pytest.mark.parametrize("name", ["model.encoder.version", "h.0.attn.bias"])
def test_what_one_family_leaves_out_another_reports(name):
    family, paths, keys = paths_and_keys("bert", "base", TINY)
    found = find_keys(family, "base", paths, [*keys.values(), name])
    assert (found.keys, found.unused) == (keys, (name,))


def test_pythia_keeps_masks_and_frequencies():
    config = {"num_hidden_layers": 1, "hidden_size": 64}
    family, paths, keys = paths_and_keys("gpt_neox", "causal_lm", config)
    attention = "gpt_neox.layers.0.attention"
    names = ("bias", "masked_bias", "rotary_emb.inv_freq")
    buffers = [f"{attention}.{name}" for name in names]
    found = find_keys(family, "causal_lm", paths, [*keys.values(), *buffers])
    assert found.keys == keys
    assert "embed_out.weight" in keys.values()
    assert found.unused == ()


def test_tied_gpt_neox_may_repeat_its_words():
    config = {"num_hidden_layers": 1, "hidden_size": 64, "tie_word_embeddings": True}
    family, paths, keys = paths_and_keys("gpt_neox", "causal_lm", config)
    for copy in ("embed_out.weight", "lm_head.weight"):
        found = find_keys(family, "causal_lm", paths, [*keys.values(), copy])
        assert (found.keys, found.unused) == (keys, ())


@pytest.mark.parametrize(
    ("model_type", "copies"),
    [
        pytest.param(
            "roberta",
            {
                "lm_head.decoder.weight": f"roberta.{WORDS}",
                "lm_head.decoder.bias": "lm_head.bias",
            },
            id="roberta",
        ),
        pytest.param(
            "distilbert",
            {"vocab_projector.weight": f"distilbert.{WORDS}"},
            id="distilbert",
        ),
        pytest.param(
            "electra",
            {"generator_lm_head.weight": f"electra.{WORDS}"},
            id="electra",
        ),
        pytest.param(
            "modernbert",
            {"decoder.weight": "model.embeddings.tok_embeddings.weight"},
            id="modernbert",
        ),
        pytest.param(
            "deberta-v2",
            {
                "cls.predictions.decoder.weight": (
                    "deberta.embeddings.word_embeddings.weight"
                ),
                "cls.predictions.decoder.bias": "cls.predictions.bias",
            },
            id="deberta-v2",
        ),
        pytest.param(
            "albert",
            {
                "predictions.decoder.weight": f"albert.{WORDS}",
                "predictions.decoder.bias": "predictions.bias",
            },
            id="albert",
        ),
    ],
)
def test_tied_copy_is_read_only_where_the_first_is_absent(model_type, copies):
    family, _, keys = paths_and_keys(model_type, "masked_lm", TINY)
    both = find_keys(family, "masked_lm", keys, [*keys.values(), *copies])
    assert both.keys == keys
    assert both.unused == ()
    lacking = [key for key in keys.values() if key not in copies.values()]
    alone = find_keys(family, "masked_lm", keys, [*lacking, *copies])
    first_to_copy = {first: copy for copy, first in copies.items()}
    assert alone.keys == {p: first_to_copy.get(k, k) for p, k in keys.items()}
    assert alone.unused == ()


def test_llama_kept_its_frequencies_and_other_heads_have_other_prefixes():
    config = {"num_hidden_layers": 1}
    family, paths, keys = paths_and_keys("llama", "question_answering", config)
    buffer = "model.layers.0.self_attn.rotary_emb.inv_freq"
    causal = [key.replace("transformer.", "model.", 1) for key in keys.values()]
    assert causal != [*keys.values()]
    for stored in (keys.values(), causal):
        found = find_keys(family, "question_answering", paths, [*stored, buffer])
        assert found.keys == dict(zip(keys, stored, strict=True))
        assert found.unused == ()


def test_llama_with_tied_words_may_repeat_them():
    config = {"num_hidden_layers": 1, "tie_word_embeddings": True}
    family, paths, keys = paths_and_keys("llama", "causal_lm", config)
    found = find_keys(family, "causal_lm", paths, [*keys.values(), "lm_head.weight"])
    assert found.keys == keys
    assert found.unused == ()
