# SPDX-License-Identifier: Apache-2.0
"""``jft.load`` keeps a checkpoint's numbers and draws what is new, or says why not."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jft.adapted import quantize
from jft.models.classes import with_classes
from jft.params import init_params
from jft.params.quantised import KINDS, flatten_whole, is_quantised
from jft.paths import flatten
from jft.pretrained import init_model, load, save
from jft.train import make_mesh
from jft.types import InputError

GOLDEN = Path(__file__).parent / "models" / "golden_vit"


@pytest.fixture
def folder(tmp_path):
    """A copy of the recorded model, to be damaged."""
    return Path(shutil.copytree(GOLDEN, tmp_path / "model"))


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_own_head_is_kept_without_classes():
    model = load(GOLDEN)
    assert model.class_names == ("a", "b", "c")
    assert model.report.new == model.report.unused == ()
    assert model.num_layers == 2
    assert {model.layer_index(path) for path in flatten(model.params)} == set(range(4))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(model.params))


@pytest.mark.parametrize("names", [["x", "y"], ["x", "y", "z"]])
def test_new_head_is_the_keys_and_the_rest_the_checkpoints(names):
    key = jax.random.key(5)
    old, new = load(GOLDEN), load(GOLDEN, class_names=names, key=key)
    assert new.class_names == tuple(names)
    assert new.config["label2id"] == {name: i for i, name in enumerate(names)}
    assert new.report.new == ("classifier/bias", "classifier/kernel")
    head = new.family.head_rules[new.task]
    drawn = init_params(
        new.family, new.module.config, task=new.task, key=key, only=head
    )
    for path, leaf in flatten(new.params).items():
        source = drawn if path.startswith("classifier/") else old.params
        np.testing.assert_array_equal(leaf, flatten(source)[path])


def test_apply_fn_drops_out_only_with_a_key(folder):
    edit_config(folder, hidden_dropout_prob=0.5)
    model = load(folder)
    batch = {"pixel_values": np.load(GOLDEN / "expected.npz")["images"]}
    plain = model.apply_fn(model.params, batch, key=None)
    np.testing.assert_array_equal(plain, model.apply_fn(model.params, batch, key=None))
    dropped = model.apply_fn(model.params, batch, key=jax.random.key(0))
    assert not jnp.allclose(plain, dropped)


def test_dtype_is_that_of_every_leaf():
    model = load(GOLDEN, num_classes=2, key=jax.random.key(0), dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(model.params)} == {
        np.dtype(jnp.bfloat16)
    }


def test_model_from_scratch_has_the_same_record():
    loaded = load(GOLDEN)
    model = init_model(loaded.config, key=jax.random.key(0), class_names=["x", "y"])
    assert model.report.new == tuple(sorted(flatten(loaded.params)))
    assert model.class_names == ("x", "y")
    assert loaded.class_names == ("a", "b", "c")  # the config given is left alone
    assert model.params["classifier"]["bias"].shape == (2,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 3}, "key is None"),
        ({"num_classes": 3, "class_names": ["a"]}, "give one of the two"),
        ({"num_classes": 0}, "one or more"),
        ({"class_names": ["a", "a"]}, "all different"),
    ],
)
def test_bad_classes_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        load(GOLDEN, **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "brt"}, "known are"),
        ({"hidden_act": "swiglu"}, "hidden_act"),
        ({"num_hidden_layers": 3}, "vit/encoder/layer/2"),
        ({"intermediate_size": 16}, "shapes differ"),
        ({"id2label": {"1": "a", "2": "b", "3": "c"}}, "id2label"),
    ],
)
def test_config_that_does_not_fit_the_weights_is_refused(folder, changes, message):
    edit_config(folder, **changes)
    with pytest.raises(InputError, match=message):
        load(folder)


def test_fewer_blocks_than_the_checkpoint_are_reported(folder):
    edit_config(folder, num_hidden_layers=1)
    unused = load(folder).report.unused
    assert unused
    assert all(path.startswith("vit/encoder/layer/1/") for path in unused)


def test_config_without_model_type_is_refused():
    with pytest.raises(InputError, match="no model_type"):
        init_model({"hidden_size": 8}, key=jax.random.key(0))


def test_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        load(tmp_path / "absent")
    with pytest.raises(InputError, match=r"no config\.json"):
        load(tmp_path)


def test_problem_type_of_the_source_does_not_survive_new_classes():
    config = with_classes({"problem_type": "regression", "num_labels": 1}, ["a", "b"])
    assert config == {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}


@pytest.mark.parametrize("kind", KINDS)
def test_quantised_as_it_is_loaded_or_afterwards(kind):
    """To the bit, on a device and on a mesh; a new head is there in full."""
    new = {"class_names": ["x", "y"], "key": jax.random.key(5)}
    afterwards = quantize(load(GOLDEN, **new), kind)
    for mesh in (None, make_mesh(fsdp=2)):
        loaded = load(GOLDEN, **new, quantize=kind, mesh=mesh)
        assert type(loaded.module) is type(afterwards.module)
        jax.tree.map(np.testing.assert_array_equal, loaded.params, afterwards.params)
        whole = flatten_whole(loaded.params)
        quantised = {path for path, leaf in whole.items() if is_quantised(leaf)}
        assert len(quantised) == 2 * 6
        assert not any(path.startswith("classifier/") for path in quantised)
    loaded = load(GOLDEN, reinit_layers=1, key=new["key"], quantize=kind)
    whole = flatten_whole(loaded.params)
    assert sum(map(is_quantised, whole.values())) == 6  # what is new can train
    with pytest.raises(InputError, match="'nf3' is no way to quantise"):
        load("no/such/folder", quantize="nf3")


# --- new top blocks -------------------------------------------------------------------
def test_top_blocks_are_the_keys_and_what_lies_below_the_checkpoints():
    key = jax.random.key(5)
    model = load("jft:letters_vit", reinit_layers=2, key=key)
    before = flatten(load("jft:letters_vit").params)
    config = model.family.config_from_dict(model.config)
    drawn = flatten(init_params(model.family, config, task=model.task, key=key))
    top = {model.num_layers - 1, model.num_layers}
    new = {path for path in before if model.layer_index(path) in top}
    assert set(model.report.new) == new
    assert any("layernorm" in path for path in new)
    for path, leaf in flatten(model.params).items():
        expected = drawn if path in new else before
        np.testing.assert_array_equal(leaf, expected[path], err_msg=path)


def test_the_pooler_is_drawn_with_the_top_blocks(tmp_path):
    settings = {
        "model_type": "bert",
        "vocab_size": 12,
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "max_position_embeddings": 16,
    }
    old = init_model(
        settings,
        key=jax.random.key(0),
        task="sequence_classification",
        class_names=("a", "b"),
    )
    save(tmp_path, old)
    model = load(tmp_path, reinit_layers=1, key=jax.random.key(1))
    new = set(model.report.new)
    assert {path.rsplit("/", 1)[0] for path in new if "pooler" in path} == {
        "bert/pooler/dense"
    }
    assert {path.split("/")[3] for path in new if "layer" in path.split("/")} == {"1"}
    assert not [path for path in new if "classifier" in path]  # kept: the same classes


@pytest.mark.parametrize("count", [-1, 99])
def test_more_top_blocks_than_there_are_is_refused(count):
    with pytest.raises(InputError, match=f"reinit_layers is {count}, but the model"):
        load("jft:letters_vit", reinit_layers=count, key=jax.random.key(0))


def test_new_top_blocks_need_a_key():
    with pytest.raises(InputError, match="key is None"):
        load("jft:letters_vit", reinit_layers=1)
