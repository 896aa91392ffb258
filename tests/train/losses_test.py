# SPDX-License-Identifier: Apache-2.0
import jax.numpy as jnp
import numpy as np
import pytest

from jft.train import count_correct, softmax_cross_entropy


def reference(logits, targets, smoothing):
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    classes = logits.shape[-1]
    target = np.eye(classes)[targets] * (1 - smoothing) + smoothing / classes
    return -(target * log_p).sum(-1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("masked", [False, True])
def test_cross_entropy_by_hand(smoothing, masked):
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(6, 4)) * 3, rng.integers(0, 4, 6)
    mask = np.array([1, 0, 1, 1, 0, 0.5]) if masked else np.ones(6)
    total, weight = softmax_cross_entropy(
        jnp.asarray(logits, jnp.float32),
        jnp.asarray(targets),
        loss_mask=jnp.asarray(mask, jnp.float32) if masked else None,
        label_smoothing=smoothing,
    )
    expected = (reference(logits, targets, smoothing) * mask).sum()
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    np.testing.assert_allclose(weight, mask.sum())


def test_bfloat16_logits_are_summed_in_float32():
    logits = jnp.zeros((300, 2), jnp.bfloat16)
    total, weight = softmax_cross_entropy(logits, jnp.zeros(300, jnp.int32))
    assert total.dtype == weight.dtype == jnp.float32
    np.testing.assert_allclose(total, 300 * np.log(2), rtol=1e-6)


def test_padding_is_not_counted_as_correct():
    logits = jnp.asarray([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    correct, weight = count_correct(
        logits, jnp.asarray([0, 0, 0]), loss_mask=jnp.asarray([1.0, 1.0, 0.0])
    )
    assert (float(correct), float(weight)) == (1.0, 2.0)
