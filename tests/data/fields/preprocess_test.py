# SPDX-License-Identifier: Apache-2.0
"""Images become the pixel values that transformers' processor makes of them."""

import json
import pickle

import numpy as np
import pytest

from jft.data import make_image_fields
from jft.types import InputError


def make_image(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


CONFIGS = {
    "defaults": {},
    "imagenet": {
        "size": {"height": 32, "width": 32},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    },
    "bicubic": {"size": {"height": 7, "width": 13}, "resample": 3},
    "nearest": {"size": {"height": 7, "width": 13}, "resample": 0},
    "square": {"size": 9},
    "no resize": {"do_resize": False},
    "no rescale": {"size": 9, "do_rescale": False, "image_mean": [99.0, 1.0, 2.0]},
    "no normalize": {"size": 9, "do_normalize": False, "rescale_factor": 0.5},
    "pixels": {"size": 9, "do_normalize": False, "do_rescale": False},
}
GREY = {"size": 8, "image_mean": [0.3], "image_std": [0.4]}


def assert_equals_transformers(config, image, folder):
    """Through the files that a checkpoint carries, without torch."""
    from transformers import AutoImageProcessor

    content = {"image_processor_type": "ViTImageProcessor", **config}
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    processor = AutoImageProcessor.from_pretrained(
        str(folder), backend="pil", trust_remote_code=False
    )
    expected = processor(image, return_tensors="np", input_data_format="channels_last")
    expected = expected["pixel_values"][0].transpose(1, 2, 0)
    found = make_image_fields(content)({"image": image})["pixel_values"]
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_equals_transformers(name, tmp_path):
    assert_equals_transformers(CONFIGS[name], make_image((17, 11, 3)), tmp_path)


@pytest.mark.parametrize("shape", [(8, 8, 1), (12, 20, 1)])
def test_equals_transformers_on_grey_images(shape, tmp_path):
    assert_equals_transformers(GREY, make_image(shape), tmp_path)


def test_hand_formula():
    fields_fn = make_image_fields(
        {"do_resize": False, "image_mean": [0.25], "image_std": [2.0]}
    )
    image = np.array([[[0], [255]]], np.uint8)
    values = fields_fn({"image": image})["pixel_values"].ravel()
    np.testing.assert_allclose(values, [-0.125, 0.375], rtol=1e-6)


def test_fields_and_their_types():
    fields_fn = pickle.loads(pickle.dumps(make_image_fields(GREY, num_classes=3)))
    image = make_image((8, 8, 1))
    fields = fields_fn({"image": image, "targets": np.int64(2), "index": 7, "id": "x"})
    assert {n: (v.dtype.name, v.shape) for n, v in fields.items()} == {
        "pixel_values": ("float32", (8, 8, 1)),
        "targets": ("int32", ()),
        "index": ("int32", ()),
    }
    assert (fields["targets"], fields["index"]) == (2, 7)
    assert set(fields_fn({"image": image})) == {"pixel_values"}


def test_grey_among_photographs_is_repeated():
    fields_fn = make_image_fields({"size": 4})
    values = fields_fn({"image": make_image((5, 6, 1))})["pixel_values"]
    assert values.shape == (4, 4, 3)
    np.testing.assert_array_equal(values[..., 0], values[..., 2])
    grey = make_image_fields({"size": 4, "do_normalize": False})
    assert grey({"image": make_image((5, 6, 1))})["pixel_values"].shape == (4, 4, 1)
    colour = {"size": 4, "do_normalize": False, "do_convert_rgb": True}
    values = make_image_fields(colour)({"image": make_image((5, 6, 1))})["pixel_values"]
    assert values.shape == (4, 4, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"do_center_crop": True}, r"\['do_center_crop'\]"),
        ({"resample": 77}, "resample 77"),
        ({"size": {"shortest_edge": 8}}, "size {'shortest_edge': 8}"),
        ({"image_mean": [0.5, 0.5]}, "image_mean"),
        ({"image_std": [0.0]}, "not 0"),
    ],
)
def test_unknown_steps_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        make_image_fields({**GREY, **changes})


@pytest.mark.parametrize("target", [3, -1])
def test_a_target_outside_the_classes_names_the_example(target):
    example = {"image": make_image((8, 8, 1)), "targets": target, "id": "cat/7.png"}
    with pytest.raises(InputError, match=rf"cat/7.png has target {target}.*3 classes"):
        make_image_fields(GREY, num_classes=3)(example)


def test_colour_for_a_grey_model_is_refused():
    with pytest.raises(InputError, match=r"example 4 has 3 channels.* 1"):
        make_image_fields(GREY)({"image": make_image((8, 8, 3)), "index": 4})
