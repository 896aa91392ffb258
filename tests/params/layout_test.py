# SPDX-License-Identifier: Apache-2.0
"""Paths and axes lead to a checkpoint's keys and tensors and back."""

import numpy as np
import pytest

from jft.models import get_family
from jft.params.layout import KERNEL_AXES, from_tensor, to_key, to_tensor

VIT = get_family("vit")


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("vit/layernorm/scale", "vit.layernorm.weight"),
        ("vit/layernorm/bias", "vit.layernorm.bias"),
        ("classifier/kernel", "classifier.weight"),
        ("word_embeddings/embedding", "word_embeddings.weight"),
        ("vit/embeddings/cls_token", "vit.embeddings.cls_token"),
    ],
)
def test_key_is_the_checkpoints(path, key):
    assert to_key(path) == key


@pytest.mark.parametrize(
    ("tensor", "ours"),
    [((5, 2), (2, 5)), ((5, 2, 3), (3, 2, 5)), ((5, 2, 3, 4), (3, 4, 2, 5))],
)
def test_kernel_axes_go_there_and_back(tensor, ours):
    assert len(tensor) in KERNEL_AXES
    x = np.arange(np.prod(tensor)).reshape(tensor)
    y = from_tensor("a/kernel", x, VIT)
    assert y.shape == ours
    assert y[..., 1, 3].flat[0] == x[(3, 1) + (0,) * (x.ndim - 2)]
    np.testing.assert_array_equal(to_tensor("a/kernel", y, VIT), x)


@pytest.mark.parametrize("path", ["a/embedding", "a/position_embeddings", "a/bias"])
def test_other_leaves_keep_their_axes(path):
    x = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(from_tensor(path, x, VIT), x)
    np.testing.assert_array_equal(to_tensor(path, x, VIT), x)


@pytest.mark.parametrize(
    ("path", "turned"),
    [
        ("transformer/h/1/attn/c_proj/kernel", False),
        ("transformer/h/1/mlp/c_fc/kernel", False),
        ("score/kernel", True),
    ],
)
def test_gpt2_keeps_the_products_of_its_blocks_as_they_are(path, turned):
    """They are square or not: no shape would tell."""
    x, family = np.arange(9).reshape(3, 3), get_family("gpt2")
    there = to_tensor(path, x, family)
    np.testing.assert_array_equal(there, x.T if turned else x)
    np.testing.assert_array_equal(from_tensor(path, there, family), x)
    np.testing.assert_array_equal(to_tensor(path, x, VIT), x.T)
