# SPDX-License-Identifier: Apache-2.0
"""A model from scratch and its tokenizer agree, and transformers loads both."""

import jax
import numpy as np
import pytest

import jft
from jft.data.fields.tokenizer_training import CHATML, train_tokenizer
from jft.models import MODELS
from jft.types import InputError
from tests.models import peer
from tests.models.table import TABLE

TEXTS = ["a great film", "a bad film , not a great cast", "awful plot , bad cast"] * 3
KEY = jax.random.key(0)
IDS = ("pad_token_id", "bos_token_id", "eos_token_id")
FROM_SCRATCH = {  # -> (kind of tokenizer, head)
    "bert": ("wordpiece", "masked_lm"),
    "llama": ("byte_bpe", "causal_lm"),
    "marian": ("unigram", "seq2seq_lm"),
    "t5": ("unigram", "seq2seq_lm"),
}
WITHOUT_PAD = {"special_tokens": {"eos": "</s>"}, "around": (None, None)}


def make_tokenizer(kind, **options):
    return train_tokenizer(TEXTS, kind=kind, vocab_size=320, **options)


def settings(model_type, **changes):
    """A tiny config that leaves the vocabulary to the tokenizer."""
    config = {"model_type": model_type, **TABLE[model_type].config, **changes}
    return {
        name: value
        for name, value in config.items()
        if name in changes or not (name.endswith("_token_id") or "vocab_size" in name)
    }


@pytest.mark.parametrize("model_type", FROM_SCRATCH)
def test_transformers_loads_what_is_from_scratch(model_type, tmp_path):
    pytest.importorskip("torch", reason="torch is absent: pip install -e '.[parity]'")
    from transformers import AutoTokenizer

    kind, task = FROM_SCRATCH[model_type]
    chat = {"chat_template": CHATML} if kind == "byte_bpe" else {}
    tokenizer = make_tokenizer(kind, max_length=16, **chat)
    model = jft.init_model(
        settings(model_type), key=KEY, task=task, processor=tokenizer
    )
    jft.save(tmp_path, model)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    torch_model = peer.read_torch(tmp_path, model_type, task)
    written = [torch_model.config]
    if torch_model.can_generate():
        written.append(torch_model.generation_config)
    for found in written:
        for name in IDS:
            assert getattr(found, name, None) == getattr(tokenizer, name), name
        if TABLE[model_type].encoder_decoder:
            assert found.decoder_start_token_id == tokenizer.pad_token_id == 0
    assert torch_model.config.vocab_size == len(tokenizer)
    fields = dict(theirs(TEXTS[:2], padding=True, return_tensors="np"))
    ids = tokenizer(TEXTS[:2], padding=True)["input_ids"]
    assert fields["input_ids"].tolist() == ids
    if TABLE[model_type].encoder_decoder:
        fields["decoder_input_ids"] = fields["input_ids"]
    ours = np.asarray(model.apply_fn(model.params, fields, key=None))
    expected = peer.torch_forward(torch_model, task, fields).detach().numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    loaded = jft.load(tmp_path)
    assert loaded.processor(TEXTS[0])["input_ids"] == tokenizer(TEXTS[0])["input_ids"]


@pytest.mark.parametrize("model_type", sorted(set(TABLE) - {"qwen2"}))
def test_no_id_of_any_family_is_left_to_transformers_defaults(model_type, tmp_path):
    """A default id may lie outside the vocabulary, or be a word's."""
    from transformers import AutoConfig

    tokenizer = make_tokenizer("unigram")
    task = next(task for task in MODELS[model_type].heads if task != "base")
    model = jft.init_model(
        settings(model_type), key=KEY, task=task, processor=tokenizer
    )
    jft.save(tmp_path, model)
    config = AutoConfig.from_pretrained(tmp_path)
    assert config.vocab_size == len(tokenizer)
    special = {tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id}
    for name, value in config.to_dict().items():
        if name.endswith("_token_id"):
            assert value is None or value in special, name
    assert config.pad_token_id == tokenizer.pad_token_id
    assert config.eos_token_id == tokenizer.eos_token_id
    assert config.bos_token_id is None


def test_what_the_config_names_is_kept_where_it_agrees():
    tokenizer = make_tokenizer("byte_bpe")
    named = settings("llama", vocab_size=384, eos_token_id=[7, tokenizer.eos_token_id])
    model = jft.init_model(named, key=KEY, task="causal_lm", processor=tokenizer)
    assert model.config["vocab_size"] == 384
    assert model.config["eos_token_id"] == [7, tokenizer.eos_token_id]
    assert model.params["model"]["embed_tokens"]["embedding"].shape[0] == 384


@pytest.mark.parametrize(
    ("model_type", "kind", "changes", "options", "message"),
    [
        ("llama", "byte_bpe", {"pad_token_id": 5}, {}, r"_id is 5.*'<pad>'.*id 0"),
        ("bert", "wordpiece", {"vocab_size": 10}, {}, r"tokens, but.*has 10 rows"),
        ("t5", "byte_bpe", {}, WITHOUT_PAD, "t5 starts with the pad token"),
        ("t5", "unigram", {"decoder_start_token_id": 3}, {}, "start_token_id is 3"),
        ("qwen2", "byte_bpe", {}, {}, r"a Qwen2Tokenizer.*'qwen3'"),
    ],
)
def test_config_and_tokenizer_that_contradict_are_refused(
    model_type, kind, changes, options, message
):
    tokenizer = make_tokenizer(kind, **options)
    with pytest.raises(InputError, match=message):
        jft.init_model(settings(model_type, **changes), key=KEY, processor=tokenizer)
