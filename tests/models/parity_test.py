# SPDX-License-Identifier: Apache-2.0
"""jft and torch give the same logits, whichever of them wrote the folder."""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

from jft.export import save_pretrained
from jft.load import init_model, load

_PATH = Path(__file__).parent / "make_golden_vit.py"
_SPEC = importlib.util.spec_from_file_location("make_golden_vit", _PATH)
golden = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(golden)

TINY = {**golden.CONFIG, "hidden_size": 16, "intermediate_size": 24}
CASES = {
    "plain": {},
    "no qkv bias": {"qkv_bias": False},
    "square, three channels": {"image_size": 8, "patch_size": 2, "num_channels": 3},
    "patches leave a rest": {"image_size": [7, 9], "patch_size": [3, 4]},
    "five channels": {"num_channels": 5},
    "tanh gelu": {"hidden_act": "gelu_new"},
    "relu, four heads": {"hidden_act": "relu", "num_attention_heads": 4},
    "large eps": {"layer_norm_eps": 0.1},
}
TOLERANCE = 1e-4  # on logits of spread one

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="torch is absent: pip install -e '.[parity]'",
)


def jft_logits(model, images):
    apply_fn = jax.jit(lambda p, b: model.apply_fn(p, b, key=None))
    return np.asarray(apply_fn(model.params, {"pixel_values": images}))


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
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("max_shard_size", ["5GB", "4KB"])
def test_torch_reads_what_jft_wrote(case, max_shard_size, tmp_path):
    from transformers import ViTForImageClassification

    if case != "plain" and max_shard_size != "5GB":
        pytest.skip("sharding does not depend on the case")
    config = {"model_type": "vit", **TINY, **CASES[case]}
    model = init_model(config, key=jax.random.key(0), class_names=list("abc"))
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: x + rng.normal(size=x.shape, scale=0.4).astype(np.float32),
        model.params,
    )
    model = model._replace(params=params)
    images = golden.make_images(config)
    spread = jft_logits(model, images).std()
    head = jax.tree.map(lambda x: x / spread, params["classifier"])
    model = model._replace(params={**params, "classifier": head})
    files = save_pretrained(
        tmp_path, model.params, config=model.config, max_shard_size=max_shard_size
    )
    assert (len(files) > 2) == (max_shard_size == "4KB")
    torch_model, info = ViTForImageClassification.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(info.values()), info
    np.testing.assert_allclose(
        golden.torch_logits(torch_model.eval(), images),
        jft_logits(model, images),
        atol=TOLERANCE,
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
    assert (ours / index).read_bytes() == (shards / index).read_bytes()


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
