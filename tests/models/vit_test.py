# SPDX-License-Identifier: Apache-2.0
"""ViT has its published sizes, drops out in its places and is the sum of its parts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jft.models import get_family
from jft.models.dropout import Dropout
from jft.models.vit import ViT
from jft.models.vit_config import VARIANTS, config_from_dict
from jft.params import abstract_params
from jft.paths import flatten, map_with_path
from jft.types import InputError

VIT = get_family("vit")
TASK = "image_classification"
NUM_LAYERS = 2
DROPPING = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3}

# the published counts at 224 pixels and 1,000 classes
NUM_PARAMS = {
    "Ti/16": 5_717_416,
    "S/16": 22_050_664,
    "S/32": 22_878_952,
    "B/16": 86_567_656,
    "B/32": 88_224_232,
    "L/16": 304_326_632,
    "L/32": 306_535_400,
    "H/14": 632_045_800,
}


def make_config(**changes):
    return config_from_dict(
        {
            "hidden_size": 12,
            "num_hidden_layers": NUM_LAYERS,
            "num_attention_heads": 3,
            "intermediate_size": 20,
            "image_size": 6,
            "patch_size": 3,
            "num_channels": 2,
            "num_labels": 4,
            **changes,
        }
    )


@functools.cache
def make_model(**changes):
    """A module and parameters large enough that every part shows in the logits."""
    config = make_config(**changes)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        noise = rng.normal(size=leaf.shape, scale=0.3)
        return jnp.asarray(noise + path.endswith("scale"), leaf.dtype)

    return ViT(config), map_with_path(draw, abstract_params(VIT, config, task=TASK))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).normal(size=(3, 6, 6, 2)).astype(np.float32)


def test_every_variant_has_its_published_parameter_count():
    counts = {
        name: sum(
            leaf.size
            for leaf in jax.tree.leaves(abstract_params(VIT, config, task=TASK))
        )
        for name, config in VARIANTS.items()
    }
    assert counts == NUM_PARAMS


@pytest.mark.parametrize("boundary", range(1, NUM_LAYERS + 2))
def test_two_halves_are_the_whole_at_every_boundary(boundary, images):
    module, params = make_model(**DROPPING)
    for options in (
        {},
        {"deterministic": False, "rngs": {"dropout": jax.random.key(7)}},
    ):
        whole = module.apply({"params": params}, {"pixel_values": images}, **options)
        hidden = module.apply(
            {"params": params}, {"pixel_values": images}, stop=boundary, **options
        )
        # the classifier reads the first token
        assert hidden.shape == (3, 1 if boundary == NUM_LAYERS + 1 else 5, 12)
        halves = module.apply(
            {"params": params}, {}, hidden=hidden, start=boundary, **options
        )
        np.testing.assert_allclose(halves, whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("stage", range(NUM_LAYERS + 2))
def test_stage_uses_all_of_its_layer_and_nothing_else(stage, images):
    module, params = make_model()
    batch = {"pixel_values": images}
    hidden = module.apply({"params": params}, batch, stop=stage) if stage else None

    def loss(params):
        outputs = module.apply(
            {"params": params}, batch, hidden=hidden, start=stage, stop=stage + 1
        )
        return jnp.sum(jnp.sin(outputs))

    layer_index = VIT.layer_index(module.config)
    for path, grad in flatten(jax.grad(loss)(params)).items():
        if path.endswith("attention/key/bias"):
            continue  # softmax does not see it: its true gradient is zero
        assert bool(jnp.any(grad != 0)) == (layer_index(path) == stage), path


def test_final_norm_closes_the_last_block(images):
    module, params = make_model()
    hidden = module.apply(
        {"params": params}, {"pixel_values": images}, stop=NUM_LAYERS + 1
    )
    norm = params["vit"]["layernorm"]
    bias, scale = np.asarray(norm["bias"]), np.asarray(norm["scale"])
    normed = (np.asarray(hidden) - bias) / scale
    np.testing.assert_allclose(normed.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(normed.std(-1), 1, atol=1e-4)


@pytest.mark.parametrize(
    ("start", "stop"), [(-1, 2), (0, 0), (2, 1), (0, 5), (4, None)]
)
def test_stages_that_do_not_exist_are_refused(start, stop, images):
    module, params = make_model()
    with pytest.raises(InputError, match="stages 0 to 3"):
        module.apply(
            {"params": params}, {"pixel_values": images}, start=start, stop=stop
        )


def test_dropout_is_active_only_with_a_key(images):
    module, params = make_model(**DROPPING)

    def apply(seed):
        if seed is None:
            return module.apply({"params": params}, {"pixel_values": images})
        rngs = {"dropout": jax.random.key(seed)}
        return module.apply(
            {"params": params}, {"pixel_values": images}, deterministic=False, rngs=rngs
        )

    plain, dropped = apply(None), apply(1)
    assert jnp.array_equal(plain, apply(None))
    assert jnp.array_equal(dropped, apply(1))
    assert not jnp.allclose(dropped, plain)
    assert not jnp.allclose(dropped, apply(2))


def test_dropout_is_where_transformers_has_it(images):
    module, params = make_model(
        hidden_dropout_prob=0.25, attention_probs_dropout_prob=0.5
    )
    found = []

    def record(call, args, kwargs, context):
        if isinstance(context.module, Dropout) and context.method_name == "words":
            found.append(("/".join(context.module.path[:-1]), context.module.rate))
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        rngs = {"dropout": jax.random.key(1)}
        module.apply(
            {"params": params}, {"pixel_values": images}, deterministic=False, rngs=rngs
        )
    expected = [("vit/embeddings", 0.25)]
    for block in (f"vit/encoder/layer/{i}" for i in range(NUM_LAYERS)):
        expected += [
            (f"{block}/attention/attention", 0.5),
            (f"{block}/attention/output", 0.25),
            (f"{block}/output", 0.25),
        ]
    assert found == expected


def test_dtype_follows_the_parameters(images):
    module, params = make_model()
    single = module.apply({"params": params}, {"pixel_values": images})
    half = module.apply(
        {"params": jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)},
        {"pixel_values": images},
    )
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), single, atol=0.1)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), params)
        double = module.apply({"params": wide}, {"pixel_values": images})
        assert double.dtype == jnp.float64
        np.testing.assert_allclose(np.asarray(double), single, atol=2e-5)


def test_images_of_another_size_are_refused(images):
    module, params = make_model()
    with pytest.raises(InputError, match=r"\[B, 6, 6, 2\]"):
        module.apply({"params": params}, {"pixel_values": images[:, :4]})


@pytest.mark.parametrize("preset", VARIANTS)
def test_every_parameter_has_a_depth(preset):
    config = VARIANTS[preset]
    layer_index = VIT.layer_index(config)
    depths = {
        layer_index(path) for path in flatten(abstract_params(VIT, config, task=TASK))
    }
    assert depths == set(range(config.num_hidden_layers + 2))
    assert layer_index("vit/layernorm/scale") == config.num_hidden_layers


@pytest.mark.parametrize(
    "path",
    [
        "vit/encoder/layer/2/output/dense/bias",
        "vit/pooler/dense/bias",
        "classifier",
        "",
    ],
)
def test_unknown_path_has_no_depth(path):
    with pytest.raises(InputError, match="belongs to no layer"):
        VIT.layer_index(make_config())(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_act", "swiglu"),
        ("hidden_size", 13),
        ("hidden_size", "12"),
        ("num_hidden_layers", 0),
        ("image_size", [6, 6, 6]),
        ("patch_size", 7),
        ("qkv_bias", 1),
        ("layer_norm_eps", -1.0),
        ("hidden_dropout_prob", 1.0),
        ("id2label", {}),
    ],
)
def test_config_that_cannot_be_honoured_names_its_field(field, value):
    with pytest.raises(InputError, match=field):
        make_config(**{field: value})


def test_sizes_may_differ_down_and_across():
    config = make_config(image_size=[7, 4], patch_size=[3, 2], id2label={"0": "a"})
    assert config.grid == (2, 2)
    assert config.num_labels == 1
    kernel = abstract_params(VIT, config, task=TASK)["vit"]["embeddings"][
        "patch_embeddings"
    ]
    assert kernel["projection"]["kernel"].shape == (3, 2, 2, 12)


def test_unknown_family_lists_the_known_ones():
    with pytest.raises(InputError, match=r"'brt' is not known; known are \[.*'bert'"):
        get_family("brt")
