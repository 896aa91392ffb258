# SPDX-License-Identifier: Apache-2.0
"""An export loads bit for bit, in exactly the files that transformers writes."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open

from jft.export import save_pretrained
from jft.pretrained import load
from jft.types import InputError
from tests.models import peer
from tests.models.table import TABLE

GOLDEN = Path(__file__).parents[1] / "models" / "golden_vit"
PROCESSOR = {
    "do_normalize": True,
    "image_mean": [0.5],
    "image_processor_type": "ViTImageProcessor",
    "image_std": [0.5],
    "size": {"height": 6, "width": 4},
}


@pytest.fixture(scope="module")
def model():
    return load(GOLDEN)


def assert_same(params, other):
    assert jax.tree.structure(params) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, params, other)


@pytest.mark.parametrize("max_shard_size", ["5GB", "1KB"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_export_loads_bit_for_bit(dtype, max_shard_size, tmp_path, model):
    params = jax.tree.map(lambda x: x.astype(dtype), model.params)
    save_pretrained(
        tmp_path,
        params,
        config=model.config,
        processor=PROCESSOR,
        max_shard_size=max_shard_size,
    )
    again = load(tmp_path, dtype=dtype)
    assert_same(again.params, params)
    assert again.config["dtype"] == str(np.dtype(dtype))
    assert again.processor == PROCESSOR
    assert again.class_names == model.class_names


def test_files_are_exactly_transformers(tmp_path, model):
    files = save_pretrained(
        tmp_path,
        model.params,
        config={**model.config, "_name_or_path": "/home", "torch_dtype": "float16"},
        processor=PROCESSOR,
        model_card="# card",
    )
    names = {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert {f.name for f in tmp_path.iterdir()} == names | {"README.md"}
    assert set(files) == set(tmp_path.iterdir())
    for name in ("config.json", "preprocessor_config.json"):
        text = (tmp_path / name).read_text()
        assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["ViTForImageClassification"]
    assert config["dtype"] == "float32"
    assert not {"_name_or_path", "torch_dtype"} & config.keys()
    with safe_open(tmp_path / "model.safetensors", framework="numpy") as tensors:
        assert tensors.metadata() == {"format": "pt"}


def test_shards_and_index_agree(tmp_path, model):
    save_pretrained(tmp_path, model.params, config=model.config, max_shard_size="1KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    leaves = jax.tree.leaves(model.params)
    assert index["metadata"] == {
        "total_parameters": sum(x.size for x in leaves),
        "total_size": sum(x.nbytes for x in leaves),
    }
    found = {}
    for file in tmp_path.glob("model-*.safetensors"):
        with safe_open(file, framework="numpy") as tensors:
            sizes = [tensors.get_tensor(key).nbytes for key in tensors.keys()]  # noqa: SIM118
            assert sum(sizes) <= 1000 or len(sizes) == 1
            found |= dict.fromkeys(tensors.keys(), file.name)
    assert found == index["weight_map"]


@pytest.mark.parametrize(
    ("first", "second"), [("1KB", "5GB"), ("5GB", "1KB"), ("1KB", "2KB")]
)
def test_no_weights_of_an_earlier_export_survive(first, second, tmp_path, model):
    (tmp_path / "model-notes.txt").write_text("mine")
    save_pretrained(tmp_path, model.params, config=model.config, max_shard_size=first)
    params = jax.tree.map(lambda x: x + 1, model.params)
    save_pretrained(tmp_path, params, config=model.config, max_shard_size=second)
    assert_same(load(tmp_path).params, params)
    clean = tmp_path / "clean"
    save_pretrained(clean, params, config=model.config, max_shard_size=second)
    left = {file.name for file in tmp_path.iterdir()} - {"clean", "model-notes.txt"}
    assert left == {file.name for file in clean.iterdir()}
    assert (tmp_path / "model-notes.txt").exists()


def test_generation_settings_leave_config_json_whole(tmp_path):
    config = peer.full_config("gpt2", TABLE["gpt2"], "causal_lm")
    _, params = peer.make_jft("gpt2", config, "causal_lm")
    old = {**config, "suppress_tokens": [5], "num_beams": 4, "eos_token_id": 3}
    save_pretrained(tmp_path, params, config=old, task="causal_lm")
    written = json.loads((tmp_path / "config.json").read_text())
    assert not {"suppress_tokens", "num_beams"} & written.keys()
    generation = json.loads((tmp_path / "generation_config.json").read_text())
    assert generation.pop("transformers_version")
    assert generation == {
        "_from_model_config": True,
        "eos_token_id": 3,
        "num_beams": 4,
        "suppress_tokens": [5],
        **{n: config[n] for n in ("bos_token_id", "pad_token_id") if n in config},
    }
    # a classifier in the same folder generates nothing
    config = peer.full_config("gpt2", TABLE["gpt2"], "sequence_classification")
    _, params = peer.make_jft("gpt2", config, "sequence_classification")
    save_pretrained(tmp_path, params, config=config, task="sequence_classification")
    assert not (tmp_path / "generation_config.json").exists()


def test_parameters_of_another_config_are_refused(tmp_path, model):
    wrong = {**model.config, "num_hidden_layers": 1}
    with pytest.raises(InputError, match=r"Only in the parameters: \['vit/encoder/lay"):
        save_pretrained(tmp_path / "out", model.params, config=wrong)
    wrong = {**model.config, "id2label": {"0": "a"}}
    with pytest.raises(InputError, match=r"classifier/bias \[1\]"):
        save_pretrained(tmp_path / "out", model.params, config=wrong)
    assert not (tmp_path / "out").exists()


def test_bad_state_is_never_written(tmp_path, model):
    head = {**model.params["classifier"], "bias": jnp.full(3, jnp.nan)}
    params = {**model.params, "classifier": head}
    with pytest.raises(InputError, match="classifier/bias"):
        save_pretrained(tmp_path / "out", params, config=model.config)
    head = {**head, "bias": jnp.zeros(3, jnp.bfloat16)}
    with pytest.raises(InputError, match="bfloat16"):
        save_pretrained(
            tmp_path / "out", {**params, "classifier": head}, config=model.config
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", ["5", "0GB", "big", "1.5GB"])
def test_size_that_is_none_is_refused(size, tmp_path, model):
    with pytest.raises(InputError, match="max_shard_size"):
        save_pretrained(
            tmp_path, model.params, config=model.config, max_shard_size=size
        )


def test_directory_that_cannot_be_written(tmp_path, model):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        save_pretrained(tmp_path / "file", model.params, config=model.config)
