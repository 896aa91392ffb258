# SPDX-License-Identifier: Apache-2.0
"""The suite for GPUs counts what a step needs, and runs, in little, on a CPU."""

import json

import jax
import pytest

from experiments import benchmark
from experiments.benchmarks import gpu_cases, utilisation
from experiments.benchmarks.gpu_cases import Case, Variant

pytest.importorskip("torch", reason="torch is in the extras parity and bench")
from experiments.benchmarks import gpu

D, F, V, N = 16, 24, 32, 2  # width, of the MLP, vocabulary, blocks
SIZES = {
    "hidden_size": D,
    "intermediate_size": F,
    "num_hidden_layers": N,
    "num_attention_heads": 2,
}
TINY = {
    "bert": Case(
        {
            "model_type": "bert",
            **SIZES,
            "vocab_size": V,
            "max_position_embeddings": 16,
            "attention_probs_dropout_prob": 0.0,
        },
        "text_classification",
        rows=2,
        length=8,
        blocks="bert/encoder/layer",
    ),
    "vit": Case(
        {"model_type": "vit", **SIZES, "image_size": 8, "patch_size": 4},
        "image_classification",
        rows=2,
        length=None,
        blocks="vit/encoder/layer",
    ),
    "llama": Case(
        {"model_type": "llama", **SIZES, "num_key_value_heads": 1, "vocab_size": V},
        "causal_lm",
        rows=2,
        length=8,
        blocks="model/layers",
    ),
}


def products(tokens, length, parts):
    """Of a block: matrices of so many values, and the two products of attention."""
    return tokens * (2 * parts + 4 * length * D)


def needed(name, variant):
    job = gpu_cases.make_job(TINY[name], variant, {})
    return gpu.needed_flops(job, gpu_cases.make_batch(TINY[name], rows=2))


def test_the_operations_that_a_step_needs_are_those_of_its_products():
    """Three forwards where all moves; whatever blocks keep, and who attends."""
    # the last block reads the first token of each text, but keys and values of all
    bert = products(16, 8, 4 * D * D + 2 * D * F) + 16 * 2 * 2 * D * D
    bert += products(2, 8, 2 * D * D + 2 * D * F) + 2 * 2 * (D * D + 2 * D)
    assert needed("bert", Variant()) == 3 * bert
    assert needed("bert", Variant(remat="nothing")) == 3 * bert
    # of the head alone the forward and the gradient of its matrix
    assert needed("bert", Variant(moves="head")) == bert + 2 * 2 * D * 2
    # queries and outputs whole, half as many keys and values; the head is a product
    llama = N * products(16, 8, 3 * D * D + 3 * D * F) + 2 * 16 * D * V
    assert needed("llama", Variant()) == 3 * llama
    # five tokens; the pixels have no gradient
    patches = 2 * (2 * 4) * (3 * 16) * D
    vit = products(10, 5, 4 * D * D + 2 * D * F) + 10 * 2 * 2 * D * D
    vit += products(2, 5, 2 * D * D + 2 * D * F) + 2 * 2 * 2 * D
    assert needed("vit", Variant()) == 3 * vit + 2 * patches


def test_utilisation_is_of_the_dense_peak():
    share = utilisation.utilisation(989.4e12, 2.0, device_kind="NVIDIA H200")
    assert share == 0.5
    assert utilisation.utilisation(1.0, 1.0, device_kind="cpu") is None


def test_the_suite_runs_in_little(call, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_cases, "CASES", {"llama": TINY["llama"]})
    variants = (Variant(), Variant(remat="nothing"), Variant(moves="lora"))
    monkeypatch.setattr(gpu_cases, "VARIANTS", variants)
    monkeypatch.setattr(gpu.train, "device_bytes", lambda: 200_000)
    monkeypatch.setattr(gpu.gpu_peer, "SETTLE", 1)
    output = tmp_path / "out.json"
    argv = ["--suite=gpu", "--rounds=2", "--steps=1", f"--output={output}"]
    result = call(benchmark, *argv)
    assert result.status == 0, result.err
    (one,) = json.loads(output.read_text())["results"]
    assert one["case"] == "llama"
    whole, less, lora = one["steps"]
    assert len(whole["seconds"]) == len(one["trainer"]) == len(one["ratio"]) == 2
    assert whole["flops"] == less["flops"]
    assert lora["trainable"] < whole["trainable"]
    assert whole["by"].startswith("attention: XLA, as programs run on no NVIDIA GPU")
    rows = {moves: found["rows"] for moves, found in one["largest"].items()}
    assert rows["head"] > rows["all"] >= 2
    for found in one["largest"].values():
        assert found["bytes"] <= 200_000 < 4 * found["bytes"]
    assert "MFU" in result.out


def test_a_case_that_is_not_there_is_named(call):
    result = call(benchmark, "--suite=gpu", "--config=bert-large")
    assert result.status == 2
    assert "'bert-base'" in result.err


def test_all_cases_are_built_with_their_full_sizes(monkeypatch):
    """Parameters as published: 109.5, 85.8 and 1,100 million."""

    def count(case):
        model = gpu_cases.jft.models
        family = model.family_of(case.model)
        config = family.config_from_dict(case.model)
        task = gpu_cases.get_task(case.task)
        shapes = gpu_cases.jft.params.abstract_params(family, config, task=task.head)
        return sum(x.size for x in jax.tree.leaves(shapes))

    millions = {name: count(case) / 1e6 for name, case in gpu_cases.CASES.items()}
    assert round(millions["bert-base"], 1) == 109.5
    assert round(millions["vit-b16"], 1) == 85.8
    assert round(millions["llama-1b"]) == 1100
