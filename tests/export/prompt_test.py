# SPDX-License-Identifier: Apache-2.0
"""PEFT and jft read each other's prompts and prefixes and give the same answers.

PEFT 0.21 with transformers 5.23 has no such adapter of images, puts prefixes into heads
of language models and bare models alone, and builds no model of two texts, for want of
a method that transformers has renamed: here it gets an attribute of that name, which
only its ``generate`` would call. Of a prompt it drops the types of tokens but for
classifiers, and where the last token answers it takes padding for text.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import jft
from jft.models import get_family
from jft.params import adapters
from jft.params.adapters import PrefixTuning, PromptTuning
from jft.paths import map_with_path
from jft.types import InputError
from tests.export.adapter_test import (
    CONFIG,
    TOLERANCE,
    WEIGHTS,
    moved,
    needs_peft,
    read_torch,
    torch_logits,
    write_base,
)
from tests.models import peer
from tests.params.adapters import table

PROMPT, PREFIX = PromptTuning(num_virtual_tokens=3), PrefixTuning(num_virtual_tokens=3)
CASES = {
    "bert, a head": ("bert", "sequence_classification", PROMPT),
    "bert, a head of tokens": ("bert", "token_classification", PROMPT),
    "bert, bare": ("bert", "base", PROMPT),
    "bert, keys": ("bert", "base", PREFIX),
    "gpt2": ("gpt2", "causal_lm", PROMPT),
    "gpt2, a head": ("gpt2", "sequence_classification", PROMPT),
    "gpt2, keys": ("gpt2", "causal_lm", PREFIX),
    "llama": ("llama", "causal_lm", PROMPT),
    "llama, keys": ("llama", "causal_lm", PREFIX),
    "gemma2, scaled words": ("gemma2", "causal_lm", PROMPT),
    "gemma3, keys and windows": ("gemma3_text", "causal_lm", PREFIX),
    "mistral, keys and a window": ("mistral", "causal_lm", PREFIX),
    "phi3, keys": ("phi3", "causal_lm", PREFIX),
    "bart": ("bart", "seq2seq_lm", PROMPT),
    "bart, keys": ("bart", "seq2seq_lm", PREFIX),
    "marian, keys": ("marian", "seq2seq_lm", PREFIX),
    "t5": ("t5", "seq2seq_lm", PROMPT),
    "t5, keys": ("t5", "seq2seq_lm", PREFIX),
}


def read_two_texts(folder, model_type, task):
    """The torch model, with the attribute that PEFT asks for."""
    model = read_torch(folder, model_type, task)
    if task == "seq2seq_lm":
        model._prepare_encoder_decoder_kwargs_for_generation = None
    return model


def batch_and_real(folder, model_type, task):
    """What both read alike, and where their answers mean something."""
    batch = write_base(folder, model_type, task)
    if not task.endswith("classification"):
        batch.pop("token_type_ids", None)
    real = peer.real_positions(task, batch)
    if (model_type, task) == ("gpt2", "sequence_classification"):
        real = batch["attention_mask"][:, -1] > 0
    return batch, real


def far(model, params):
    """Keys and values as large as real ones."""
    rng = np.random.default_rng(0)

    def move(path, x):
        noise = jnp.asarray(rng.normal(size=x.shape), jnp.float32)
        return noise if "/prefix_" in path else x

    return map_with_path(move, params)


def answer(model, params, task, batch):
    outputs = jax.jit(model.apply_fn)(params, batch, key=None)
    return np.asarray(peer.pick(task, outputs))


def torch_answer(wrapped, task, batch):
    """PEFT's, of which a prompt's own tokens are left out."""
    theirs = torch_logits(wrapped, task, batch)
    is_prompt = wrapped.active_peft_config.peft_type == "PROMPT_TUNING"
    of_tokens = theirs.ndim == 3 and task != "seq2seq_lm"
    return theirs[:, 3:] if is_prompt and of_tokens else theirs


@needs_peft
@pytest.mark.filterwarnings("ignore")  # of PEFT's, on types of tokens and positions
@pytest.mark.parametrize("case", CASES)
def test_same_answers_both_ways(case, tmp_path):
    import peft

    model_type, task, adapter = CASES[case]
    batch, real = batch_and_real(tmp_path / "base", model_type, task)
    base = jft.load(tmp_path / "base")
    model = jft.adapt(base, adapter, key=jax.random.key(0))
    params = far(model, moved(model))
    ours = answer(model, params, task, batch)
    assert np.abs(ours - answer(base, base.params, task, batch))[real].max() > 0.1

    # what jft writes, PEFT reads
    jft.save_adapter(tmp_path / "ours", model, params=params)
    torch_model = read_two_texts(tmp_path / "base", model_type, task)
    wrapped = peft.PeftModel.from_pretrained(torch_model, tmp_path / "ours").eval()
    theirs = torch_answer(wrapped, task, batch)
    np.testing.assert_allclose(ours[real], theirs[real], atol=TOLERANCE)

    # what PEFT writes, jft reads
    wrapped.save_pretrained(tmp_path / "theirs")
    again = jft.load_adapter(tmp_path / "theirs", base)
    back = answer(again, again.params, task, batch)
    np.testing.assert_allclose(back[real], ours[real], atol=1e-5)
    names = [set(load_file(tmp_path / x / WEIGHTS)) for x in ("ours", "theirs")]
    assert names[0] == names[1]


MADE = {
    "bert": ("bert", "sequence_classification", "SEQ_CLS", "Prompt", {}),
    "gpt2, by a network": (
        "gpt2",
        "causal_lm",
        "CAUSAL_LM",
        "Prefix",
        {"prefix_projection": True, "encoder_hidden_size": 8},
    ),
    "t5": ("t5", "seq2seq_lm", "SEQ_2_SEQ_LM", "Prompt", {}),
    "t5, keys": ("t5", "seq2seq_lm", "SEQ_2_SEQ_LM", "Prefix", {"token_dim": 30}),
}


@needs_peft
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", MADE)
def test_reads_what_peft_makes(case, tmp_path):
    import peft

    model_type, task, task_type, kind, options = MADE[case]
    batch, real = batch_and_real(tmp_path / "base", model_type, task)
    method = getattr(peft, f"{kind}TuningConfig")
    settings = method(num_virtual_tokens=3, task_type=task_type, **options)
    torch_model = read_two_texts(tmp_path / "base", model_type, task)
    wrapped = peft.get_peft_model(torch_model, settings).eval()
    theirs = torch_answer(wrapped, task, batch)
    wrapped.save_pretrained(tmp_path / "theirs")
    model = jft.load_adapter(tmp_path / "theirs", jft.load(tmp_path / "base"))
    ours = answer(model, model.params, task, batch)
    np.testing.assert_allclose(ours[real], theirs[real], atol=TOLERANCE)


@needs_peft
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("model_type", "task", "adapter", "error", "said"),
    [
        ("bert", "sequence_classification", PREFIX, ValueError, "past key values"),
        ("gpt2", "sequence_classification", PREFIX, ValueError, "past key values"),
        ("t5", "seq2seq_lm", PREFIX, AttributeError, "_prepare_encoder_decoder_kwargs"),
        ("vit", "image_classification", PROMPT, AttributeError, "vocab_size"),
    ],
)
def test_what_peft_cannot(model_type, task, adapter, error, said, tmp_path):
    """jft can, and reads its own files."""
    import peft

    batch = write_base(tmp_path / "base", model_type, task)
    base = jft.load(tmp_path / "base")
    model = jft.adapt(base, adapter, key=jax.random.key(0))
    params = moved(model)
    jft.save_adapter(tmp_path / "ours", model, params=params)
    torch_model = read_torch(tmp_path / "base", model_type, task)

    def load_and_run():
        wrapped = peft.PeftModel.from_pretrained(torch_model, tmp_path / "ours").eval()
        return torch_logits(wrapped, task, batch)

    with pytest.raises(error, match=said):
        load_and_run()
    again = jft.load_adapter(tmp_path / "ours", base)
    np.testing.assert_array_equal(
        answer(again, again.params, task, batch), answer(model, params, task, batch)
    )


def with_prompt(folder, model_type, task, read):
    """A moved prompt over the base in a folder, and PEFT's model of what was saved."""
    import peft

    model = jft.adapt(jft.load(folder / "base"), PROMPT, key=jax.random.key(0))
    params = moved(model)
    jft.save_adapter(folder / "ours", model, params=params)
    torch_model = read(folder / "base", model_type, task)
    wrapped = peft.PeftModel.from_pretrained(torch_model, folder / "ours").eval()
    return model, params, wrapped


@needs_peft
@pytest.mark.filterwarnings("ignore")
def test_marian_of_vectors_does_not_scale_the_words(tmp_path):
    """So PEFT reads the text too small; with the scale put back it answers as jft."""
    import torch

    task = "seq2seq_lm"
    batch, real = batch_and_real(tmp_path / "base", "marian", task)
    model, params, wrapped = with_prompt(tmp_path, "marian", task, read_two_texts)
    ours = answer(model, params, task, batch)
    theirs = torch_answer(wrapped, task, batch)
    assert np.abs(ours - theirs)[real].max() > 100 * TOLERANCE

    class Scaled(torch.nn.Module):
        def __init__(self, words):
            super().__init__()
            self.words = words

        def forward(self, ids):
            return self.words(ids) * model.config["d_model"] ** 0.5

    wrapped.word_embeddings = Scaled(wrapped.word_embeddings)
    theirs = torch_answer(wrapped, task, batch)
    np.testing.assert_allclose(ours[real], theirs[real], atol=TOLERANCE)


@needs_peft
@pytest.mark.filterwarnings("ignore")
def test_roberta_of_vectors_counts_padding_on_the_left(tmp_path):
    """So PEFT answers another way than without it; jft does not."""
    task = "sequence_classification"
    batch, _ = batch_and_real(tmp_path / "base", "roberta", task)
    model, params, wrapped = with_prompt(tmp_path, "roberta", task, read_torch)
    ids = np.asarray(batch["input_ids"])[:1, :4]
    text = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    fills = {"input_ids": model.config["pad_token_id"], "attention_mask": 0}
    left, right = (
        {
            name: np.pad(x, ((0, 0), pad), constant_values=fills[name])
            for name, x in text.items()
        }
        for pad in ((3, 0), (0, 3))
    )
    ours, padded = (answer(model, params, task, x) for x in (text, left))
    np.testing.assert_allclose(padded, ours, atol=TOLERANCE)
    for same in (text, right):
        theirs = torch_answer(wrapped, task, same)
        np.testing.assert_allclose(theirs, ours, atol=TOLERANCE)
    other = torch_answer(wrapped, task, left)
    assert np.abs(other - ours).max() > 100 * TOLERANCE


# --- without PEFT ---------------------------------------------------------------------
@pytest.mark.parametrize("adapter", [PROMPT, PREFIX])
def test_files_are_pefts_and_are_written_again(adapter, tmp_path):
    model, _ = table.make_model("bert", "sequence_classification")
    adapted = jft.adapt(model, adapter, key=jax.random.key(0))
    jft.save_adapter(tmp_path / "one", adapted, params=moved(adapted))
    config = json.loads((tmp_path / "one" / CONFIG).read_text())
    assert config["peft_type"] == adapter.peft_type
    assert config["task_type"] == "SEQ_CLS"
    assert config["num_virtual_tokens"] == 3
    assert config["modules_to_save"] == ["classifier"]
    tensors = load_file(tmp_path / "one" / WEIGHTS)
    width = 24 if adapter is PROMPT else 2 * 2 * 24
    assert tensors["prompt_embeddings"].shape == (3, width)
    assert tensors["base_model.classifier.weight"].shape == (4, 24)
    assert len(tensors) == 1 + 2
    again = jft.load_adapter(tmp_path / "one", model)
    jft.save_adapter(tmp_path / "two", again)
    files = [(tmp_path / x / CONFIG).read_text() for x in ("one", "two")]
    assert files[0] == files[1]
    jax.tree.map(
        np.testing.assert_array_equal, tensors, load_file(tmp_path / "two" / WEIGHTS)
    )


def test_layers_are_in_the_order_of_their_numbers():
    """Also the eleventh, whose name sorts before the third's."""
    places = [f"h/{i}/attn" for i in range(12)]
    leaves_of = {
        place: {
            "prefix_key": jnp.full((2, 1, 3), i),
            "prefix_value": jnp.full((2, 1, 3), -i),
        }
        for i, place in enumerate(sorted(places))
        for i in [int(place.split("/")[1])]
    }
    names = adapters.Names(get_family("bert"), {}, {}, {}, {})
    options = {"saved": (), "names": names, "task": "causal_lm", "base_model": None}
    config, tensors = adapters.to_peft_prompt(PREFIX, leaves_of, {}, **options)
    assert config["num_layers"] == 12
    rows = tensors["prompt_embeddings"].reshape(2, 12, 2, 3)
    np.testing.assert_array_equal(rows[0, :, 0, 0], np.arange(12))
    np.testing.assert_array_equal(rows[0, :, 1, 0], -np.arange(12))


@pytest.mark.parametrize(
    ("adapter", "config", "tensors", "said"),
    [
        (PROMPT, {"modules": 1}, {}, "sets {'modules': 1}, which jft has not"),
        (PROMPT, {}, {"base_model.x.y": (2,)}, r"base_model\.x\.y"),
        (PROMPT, {}, {"prompt_embeddings": (3, 25)}, r"another base.*\[3, 25\]"),
        (PREFIX, {}, {"prompt_embeddings": (3, 90)}, "another base.*90 numbers"),
        (PREFIX, {}, None, "needs the tensor 'prompt_embeddings'"),
    ],
)
def test_files_that_do_not_fit_are_refused(adapter, config, tensors, said, tmp_path):
    model, _ = table.make_model("bert", "sequence_classification")
    adapted = jft.adapt(model, adapter, key=jax.random.key(0))
    jft.save_adapter(tmp_path, adapted)
    written = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps(written | config))
    stored = load_file(tmp_path / WEIGHTS)
    if tensors is None:
        del stored["prompt_embeddings"]
    given = {name: np.zeros(s, np.float32) for name, s in (tensors or {}).items()}
    save_file(stored | given, tmp_path / WEIGHTS)
    with pytest.raises(InputError, match=said):
        jft.load_adapter(tmp_path, model)
