# SPDX-License-Identifier: Apache-2.0
"""jft and torch give the same logits, whichever of them wrote the folder."""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jft.export import save_pretrained
from jft.models import get_family
from jft.params import abstract_params
from jft.paths import map_with_path
from jft.pretrained import load

_PATH = Path(__file__).parent / "make_golden_vit.py"
_SPEC = importlib.util.spec_from_file_location("make_golden_vit", _PATH)
golden = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(golden)

TINY = {**golden.CONFIG, "hidden_size": 16, "intermediate_size": 24}
CASES = {
    "plain": {},
    "no qkv bias, square, three channels, tanh gelu": {
        "qkv_bias": False,
        "image_size": 8,
        "patch_size": 2,
        "num_channels": 3,
        "hidden_act": "gelu_new",
    },
    "patches leave a rest, five channels, relu, four heads, large eps": {
        "image_size": [7, 9],
        "patch_size": [3, 4],
        "num_channels": 5,
        "hidden_act": "relu",
        "num_attention_heads": 4,
        "layer_norm_eps": 0.1,
    },
}
TASK = "image_classification"
TOLERANCE = 1e-4  # on logits of spread one

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="torch is absent: pip install -e '.[parity]'",
)


def jft_logits(model, images):
    return np.asarray(model.apply_fn(model.params, {"pixel_values": images}, key=None))


def make_jft_vit(config):
    """Make a module and random parameters, norm scales and biases too."""
    vit = get_family("vit")
    vit_config = vit.config_from_dict(config)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        noise = rng.normal(size=leaf.shape, scale=0.4)
        return jnp.asarray(noise + path.endswith("scale"), leaf.dtype)

    template = abstract_params(vit, vit_config, task=TASK)
    return vit.make_module(vit_config, TASK), map_with_path(draw, template)


def test_recorded_torch_logits():
    expected = np.load(golden.FOLDER / "expected.npz")
    model = load(golden.FOLDER)
    assert 0.5 < expected["logits"].std() < 2
    np.testing.assert_allclose(
        jft_logits(model, expected["images"]), expected["logits"], atol=TOLERANCE
    )


@needs_torch
@pytest.mark.parametrize("case", CASES)
def test_jft_reads_what_torch_wrote(case, tmp_path):
    config = {**TINY, **CASES[case]}
    torch_model = golden.make_torch_vit(config)
    torch_model.save_pretrained(tmp_path)
    images = golden.make_images(config)
    expected = golden.torch_logits(torch_model, images)
    assert 0.5 < expected.std() < 2
    model = load(tmp_path)
    assert model.report.new == model.report.unused == ()
    np.testing.assert_allclose(jft_logits(model, images), expected, atol=TOLERANCE)


@needs_torch
@pytest.mark.parametrize(
    ("case", "max_shard_size"), [*((case, "5GB") for case in CASES), ("plain", "4KB")]
)
def test_torch_reads_what_jft_wrote(case, max_shard_size, tmp_path):
    from transformers import ViTForImageClassification

    config = {"model_type": "vit", **TINY, **CASES[case]}
    module, params = make_jft_vit(config)
    images = golden.make_images(config)
    batch = {"pixel_values": images}
    spread = module.apply({"params": params}, batch).std()
    params["classifier"] = jax.tree.map(lambda x: x / spread, params["classifier"])
    expected = module.apply({"params": params}, batch)
    files = save_pretrained(
        tmp_path, params, config=config, max_shard_size=max_shard_size
    )
    assert (len(files) > 2) == (max_shard_size == "4KB")
    torch_model, info = ViTForImageClassification.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(info.values()), info
    np.testing.assert_allclose(
        golden.torch_logits(torch_model.eval(), images), expected, atol=TOLERANCE
    )


@needs_torch
def test_jft_reads_torch_shards_and_writes_the_same_bytes(tmp_path):
    torch_model = golden.make_torch_vit(TINY)
    theirs, ours, shards = (tmp_path / name for name in ("theirs", "ours", "shards"))
    torch_model.save_pretrained(theirs)
    torch_model.save_pretrained(shards, max_shard_size="4KB")
    assert len(list(shards.glob("model-*.safetensors"))) > 1
    model = load(shards)
    save_pretrained(ours, model.params, config=model.config)
    for name in ("model.safetensors", "config.json"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    save_pretrained(ours, model.params, config=model.config, max_shard_size="4KB")
    index = "model.safetensors.index.json"
    ours, theirs = (json.loads((f / index).read_text()) for f in (ours, shards))
    assert ours["metadata"] == theirs["metadata"]
    assert ours["weight_map"].keys() == theirs["weight_map"].keys()


@needs_torch
def test_checkpoint_of_the_bare_backbone_gets_its_prefix(tmp_path):
    torch_model = golden.make_torch_vit(TINY)
    torch_model.vit.save_pretrained(tmp_path)
    model = load(tmp_path, num_classes=3, key=jax.random.key(0))
    assert model.report.new == ("classifier/bias", "classifier/kernel")
    head = torch_model.classifier
    params = {
        **model.params,
        "classifier": {
            "kernel": head.weight.detach().numpy().T,
            "bias": head.bias.detach().numpy(),
        },
    }
    images = golden.make_images(TINY)
    np.testing.assert_allclose(
        jft_logits(model._replace(params=params), images),
        golden.torch_logits(torch_model, images),
        atol=TOLERANCE,
    )
