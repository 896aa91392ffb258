# SPDX-License-Identifier: Apache-2.0
"""The other names under which published checkpoints keep the same tensors."""

from jft.models import get_family
from jft.params import abstract_params
from jft.params.keys import checkpoint_keys, find_keys
from jft.paths import flatten


def paths_and_keys(model_type, task, config=None):
    """Every parameter of a small model, and what transformers calls it."""
    family = get_family(model_type)
    model_config = family.config_from_dict(config or {})
    paths = flatten(abstract_params(family, model_config, task=task))
    return family, paths, checkpoint_keys(family, task, paths)


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
