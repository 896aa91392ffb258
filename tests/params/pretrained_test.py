# SPDX-License-Identifier: Apache-2.0
"""Weights are read as they stand in the files; damage and pickles are refused."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jft.models import get_family
from jft.params import Unread, abstract_params, load_pretrained, merge, read_config
from jft.params.pretrained import INDEX, WEIGHTS
from jft.paths import flatten
from jft.types import InputError

VIT, TASK = get_family("vit"), "image_classification"
GOLDEN = Path(__file__).parents[1] / "models" / "golden_vit"


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(GOLDEN, tmp_path / "model"))


@pytest.fixture(scope="module")
def template():
    vit = get_family("vit")
    return abstract_params(vit, vit.config_from_dict(read_config(GOLDEN)), task=TASK)


def load(folder, template):
    """All values, read."""
    return merge(load_pretrained(folder, VIT, template, task=TASK), template)[0]


def write_shards(folder):
    """Split the weights over two files, one key in turn each."""
    tensors = load_file(folder / WEIGHTS)
    names = {key: f"part-{i % 2}.safetensors" for i, key in enumerate(sorted(tensors))}
    for name in set(names.values()):
        part = {key: tensors[key] for key in names if names[key] == name}
        save_file(part, folder / name)
    (folder / WEIGHTS).unlink()
    write_index(folder, names)
    return names


def write_index(folder, weight_map):
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def test_values_are_the_files_in_our_axes(template):
    tensors = load_file(GOLDEN / WEIGHTS)
    params = flatten(load(GOLDEN, template))
    assert {path: x.shape for path, x in params.items()} == {
        path: x.shape for path, x in flatten(template).items()
    }
    np.testing.assert_array_equal(
        params["vit/encoder/layer/0/intermediate/dense/kernel"],
        tensors["vit.encoder.layer.0.intermediate.dense.weight"].T,
    )
    np.testing.assert_array_equal(
        params["vit/embeddings/patch_embeddings/projection/kernel"][2, 1, 0],
        tensors["vit.embeddings.patch_embeddings.projection.weight"][:, 0, 2, 1],
    )


def test_shards_are_the_whole(folder, template):
    whole = load(folder, template)
    write_shards(folder)
    jax.tree.map(np.testing.assert_array_equal, load(folder, template), whole)


def test_half_precision_is_cast_to_the_models_dtype(folder, template):
    tensors = load_file(folder / WEIGHTS)
    half = {key: x.astype(jnp.bfloat16) for key, x in tensors.items()}
    save_file(half, folder / WEIGHTS)
    params = load(folder, template)
    assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(
        params["classifier"]["bias"], half["classifier.bias"].astype(np.float32)
    )


def test_tensors_without_a_place_are_listed_unread(folder, template):
    tensors = load_file(folder / WEIGHTS)
    tensors["vit.pooler.dense.weight"] = np.full((8, 8), np.nan, np.float32)
    save_file(tensors, folder / WEIGHTS)
    params = load_pretrained(folder, VIT, template, task=TASK)
    assert params["vit"]["pooler"]["dense"]["weight"] == Unread((8, 8))


@pytest.mark.parametrize("damage", ["truncated", "header", "empty"])
def test_damaged_file_is_named(damage, folder, template):
    content = (folder / WEIGHTS).read_bytes()
    damaged = {"truncated": content[:-40], "header": b"\xff" * 99, "empty": b""}
    (folder / WEIGHTS).write_bytes(damaged[damage])
    with pytest.raises(InputError, match=r"model\.safetensors cannot be read"):
        load(folder, template)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_value_that_is_not_finite_is_named(value, folder, template):
    tensors = load_file(folder / WEIGHTS)
    tensors["classifier.bias"][1] = value
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(InputError, match=r"classifier\.bias holds NaN or infinity"):
        load(folder, template)


@pytest.mark.parametrize(
    "name", ["../part-0.safetensors", "/etc/part.safetensors", "a/b.safetensors", "..",
             "..\\part.safetensors", "weights.bin", ""]
)  # fmt: skip
def test_index_may_only_name_files_beside_it(name, folder, template):
    names = write_shards(folder)
    shutil.copy(folder / "part-0.safetensors", folder.parent)
    write_index(folder, {**names, "classifier.bias": name})
    with pytest.raises(InputError, match="in its own folder"):
        load(folder, template)


def test_index_and_shards_must_agree(folder, template):
    names = write_shards(folder)
    other = {key: name for key, name in names.items() if key != "classifier.bias"}
    write_index(folder, {**other, "classifier.extra": "part-0.safetensors"})
    with pytest.raises(InputError, match=r"classifier\.extra"):
        load(folder, template)
    (folder / "part-1.safetensors").unlink()
    with pytest.raises(InputError, match=r"part-1\.safetensors, which is not there"):
        load(folder, template)


@pytest.mark.parametrize("text", ["{", "[]", '{"metadata": {}}', '{"weight_map": 3}'])
def test_index_that_is_none_is_named(text, folder, template):
    write_shards(folder)
    (folder / INDEX).write_text(text)
    with pytest.raises(InputError, match=r"index\.json"):
        load(folder, template)


def test_pickled_weights_are_refused_with_a_way_out(folder, template):
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model\.bin.*save_pretrained"):
        load(folder, template)


def test_no_weights_at_all(folder, template):
    (folder / WEIGHTS).unlink()
    with pytest.raises(InputError, match="neither"):
        load(folder, template)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_config_that_is_no_object_is_named(text, folder):
    (folder / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json"):
        read_config(folder)
