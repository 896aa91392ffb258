# SPDX-License-Identifier: Apache-2.0
"""jft and transformers write the same tokens, as many as asked, and each is counted."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments import benchmark, build, run_config
from experiments.benchmarks import generation
from tests.experiments import tiny_data
from tests.experiments.configs_test import LLAMA, MARIAN

CONFIGS = Path(__file__).parents[2] / "configs"

pytest.importorskip("torch", reason="torch is in the extras parity and bench")


def overrides_of(name, folder):
    """A tiny model of each kind, and its data."""
    if name == "chat_sft":
        return {"model.model_config": LLAMA, "model.tokenizer_options.vocab_size": 300}
    return {
        "data.path": str(tiny_data.write_translations(folder)),
        "data.global_batch_size": 8,
        "model.model_config": MARIAN,
        "model.tokenizer_options.vocab_size": 60,
    }


@pytest.mark.parametrize("name", ["chat_sft", "multi30k_translate"])
def test_both_write_the_same_tokens(call, name, tmp_path):
    output = tmp_path / "out.json"
    overrides = overrides_of(name, tmp_path)
    argv = [f"--set={key}={value}" for key, value in overrides.items()]
    argv += [f"--config={CONFIGS}/{name}.py", "--shape=3x20", "--rounds=2"]
    result = call(benchmark, "--suite=generation", *argv, f"--output={output}")
    assert result.status == 0, result.err
    (found,) = json.loads(output.read_text())["results"]
    assert found["shape"] == [3, 20]
    assert found["same_tokens"] == 60
    for side in ("jft", "torch", "ratio"):
        assert len(found[side]) == 2


def test_prompts_are_the_validation_splits_over_again(tmp_path):
    """Padded on the right for an encoder, on the left for a decoder."""
    for name, side in (("multi30k_translate", "right"), ("chat_sft", "left")):
        spec, overrides = f"{CONFIGS}/{name}.py", overrides_of(name, tmp_path)
        job = build.make_job(run_config.load(spec, overrides))
        count = len(job.splits["validation"])
        batch = generation.make_prompts(job, count + 1)
        ids, mask = batch["input_ids"], np.asarray(batch["attention_mask"]) > 0
        assert ids.shape == mask.shape
        assert ids.shape[0] == count + 1
        np.testing.assert_array_equal(ids[0], ids[-1])
        assert mask.any(axis=0).all()  # no wider than the longest
        ordered = np.sort(mask, axis=1)
        np.testing.assert_array_equal(
            mask, ordered if side == "left" else ordered[:, ::-1]
        )
        if name == "multi30k_translate":
            row = job.tables["validation"][1]["input_ids"]
            np.testing.assert_array_equal(ids[1][mask[1]], row)


def test_no_text_ends_before_it_is_full(tmp_path):
    spec, overrides = f"{CONFIGS}/chat_sft.py", overrides_of("chat_sft", tmp_path)
    model = build.make_job(run_config.load(spec, overrides)).model
    wanted = generation.make_decoding(
        model._replace(generation_config={"num_beams": 4, "max_length": 5}), 7
    )
    assert wanted["max_new_tokens"] == wanted["min_new_tokens"] == 7
    assert wanted["eos_token_id"] == model.config["eos_token_id"]
    assert not {"num_beams", "max_length"} & wanted.keys()


def test_answers_that_differ_are_not_compared():
    ours = np.arange(6).reshape(2, 3)
    generation.check_same(ours, ours.copy(), (2, 3))
    theirs = ours + np.array([[0], [1]])
    with pytest.raises(AssertionError, match=r"other tokens in the rows \[1\]"):
        generation.check_same(ours, theirs, (2, 3))
    with pytest.raises(AssertionError, match=r"torch \(2, 2\)"):
        generation.check_same(ours, ours[:, :2], (2, 3))


def test_a_classifier_is_refused(call, tiny_bert):
    config = f"--config={CONFIGS}/sst2.py:pretrained={tiny_bert}"
    result = call(benchmark, "--suite=generation", config)
    assert result.status == 2
    assert "whose models write no text" in result.err
