# SPDX-License-Identifier: Apache-2.0
"""Adapters that are parameters of the base's own: norms as PEFT's, biases as jft's."""

import json
import warnings

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import jft
from jft.params import adapters
from jft.params.adapters import BitFit, Bottleneck, Lora, NormTuning, PromptTuning
from jft.params.pretrained import read_notes
from jft.paths import flatten
from jft.types import InputError
from tests.export.adapter_test import (
    CONFIG,
    TOLERANCE,
    WEIGHTS,
    moved,
    needs_peft,
    read_torch,
    real_of,
    torch_logits,
    write_base,
)
from tests.params.adapters import table

KEY = jax.random.key(0)
TASKS = {"bert": "sequence_classification", "llama": "causal_lm"}


@pytest.fixture(scope="module")
def bert():
    return table.make_model("bert", "sequence_classification")


def answer(model, params, batch):
    return np.asarray(jax.jit(model.apply_fn)(params, batch, key=None))


@needs_peft
@pytest.mark.parametrize("model_type", TASKS)
def test_norms_are_pefts_both_ways(model_type, tmp_path):
    import peft

    task = TASKS[model_type]
    batch = write_base(tmp_path / "base", model_type, task)
    real = real_of(task, batch)
    base = jft.load(tmp_path / "base")
    model = jft.adapt(base, NormTuning(), key=KEY)
    params = moved(model)
    ours = answer(model, params, batch)
    assert np.abs(ours - answer(base, base.params, batch))[real].max() > 0.1

    jft.save_adapter(tmp_path / "ours", model, params=params)
    torch_model = read_torch(tmp_path / "base", model_type, task)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        wrapped = peft.PeftModel.from_pretrained(torch_model, tmp_path / "ours").eval()
    said = [str(w.message) for w in told]
    assert not [x for x in said if "missing" in x.lower() or "unexpected" in x.lower()]
    theirs = torch_logits(wrapped, task, batch)
    np.testing.assert_allclose(ours[real], theirs[real], atol=TOLERANCE)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped.save_pretrained(tmp_path / "theirs")
    names = [set(load_file(tmp_path / x / WEIGHTS)) for x in ("ours", "theirs")]
    assert names[0] == names[1]
    again = jft.load_adapter(tmp_path / "theirs", base)
    assert isinstance(again.adapter, NormTuning)
    back = answer(again, again.params, batch)
    np.testing.assert_allclose(back[real], ours[real], atol=1e-5)


@pytest.mark.parametrize("method", [BitFit, NormTuning])
def test_what_moved_is_kept_and_no_more(method, bert, tmp_path):
    base, batch = bert
    model = jft.adapt(base, method(), key=KEY)
    params = moved(model)
    jft.save_adapter(tmp_path / "one", model, params=params)
    before, after = flatten(base.params), flatten(params)
    changed = {p for p, x in before.items() if np.abs(after[p] - x).max() > 0}
    stored = load_file(tmp_path / "one" / WEIGHTS)
    assert sum(x.size for x in stored.values()) == sum(before[p].size for p in changed)
    again = jft.load_adapter(tmp_path / "one", base)
    for path, leaf in flatten(again.params).items():
        np.testing.assert_array_equal(leaf, after[path], err_msg=path)
    assert again.adapter == method(also_train=again.adapter.also_train)
    rules = again.adapter.also_train
    assert rules == ("classifier/bias", "classifier/kernel")[method is BitFit :]
    jft.save_adapter(tmp_path / "two", again)
    config = [(tmp_path / x / CONFIG).read_text() for x in ("one", "two")]
    assert config[0] == config[1]
    assert json.loads(config[0])["peft_type"] == method.peft_type
    ours = answer(jft.gather(base, {"a": tmp_path / "two"}).use("a"), params, batch)
    np.testing.assert_array_equal(ours, answer(model, params, batch))


def test_biases_are_of_their_base_alone(bert, tmp_path):
    base, _ = bert
    model = jft.adapt(base, BitFit(), key=KEY)
    jft.save_adapter(tmp_path, model, params=moved(model))
    assert jft.load_adapter(tmp_path, jft.quantize(base, "nf4")).adapter
    tensors = load_file(tmp_path / WEIGHTS)
    name = "base_model.model.bert.encoder.layer.0.output.dense.bias"
    rest = {key: x for key, x in tensors.items() if key != name}
    assert len(rest) == len(tensors) - 1
    notes = read_notes(tmp_path / WEIGHTS)
    save_file(rest, tmp_path / WEIGHTS, notes)
    with pytest.raises(InputError, match="adapter of another base"):
        jft.load_adapter(tmp_path, base)


@pytest.mark.parametrize(
    ("adapter", "whole"),
    [(Lora(rank=2, targets=("key",)), True), (Bottleneck(reduction_factor=4), False)],
)
def test_a_lone_bias_is_kept_alone_where_the_format_is_not_pefts(
    adapter, whole, bert, tmp_path
):
    base, _ = bert
    stem = "bert/encoder/layer/0/attention/self/value"
    rules = (f"{stem}/bias", "classifier/bias")
    adapter = type(adapter)(**{**vars(adapter), "also_train": rules})
    model = jft.adapt(base, adapter, key=KEY)
    params = moved(model)
    jft.save_adapter(tmp_path, model, params=params)
    tensors = load_file(tmp_path / WEIGHTS)
    key = f"base_model.model.{stem.replace('/', '.')}"
    assert f"{key}.bias" in tensors
    assert (f"{key}.weight" in tensors) == whole
    # a head is one: what of it stays was drawn new, and no base has it
    assert "base_model.model.classifier.weight" in tensors
    again = flatten(jft.load_adapter(tmp_path, base).params)
    for path, leaf in flatten(params).items():
        np.testing.assert_array_equal(leaf, again[path], err_msg=path)


@pytest.mark.parametrize("task", sorted(adapters.TASK_TYPES))
def test_every_method_calls_a_task_alike(task, tmp_path):
    model, _ = table.make_model("gpt2" if task == "causal_lm" else "bert", task)
    types = set()
    for adapter in (Lora(rank=2), PromptTuning(num_virtual_tokens=2), BitFit()):
        jft.save_adapter(tmp_path, jft.adapt(model, adapter, key=KEY))
        types.add(json.loads((tmp_path / CONFIG).read_text())["task_type"])
    assert types == {adapters.TASK_TYPES[task]}
