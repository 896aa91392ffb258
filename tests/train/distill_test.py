# SPDX-License-Identifier: Apache-2.0
"""That the mix is Hinton's; grouping and padding are in losses_test.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jft.data.fields.padding import IGNORED
from jft.train import DIVERGENCES, distillation_loss, softmax_cross_entropy
from jft.types import InputError

RNG = np.random.default_rng(0)
N, LENGTH, C = 4, 6, 5


def normal(*shape):
    return np.asarray(RNG.normal(size=shape) * 2, np.float32)


def cross_entropy(outputs, batch):
    return softmax_cross_entropy(
        outputs, batch["targets"], loss_mask=batch["loss_mask"]
    )


def nothing(outputs, batch):
    """A loss that only counts rows."""
    del outputs
    return jnp.float32(0.0), jnp.sum(batch["loss_mask"])


def token_batch():
    targets = RNG.integers(0, C, (N, LENGTH), np.int32)
    targets[RNG.random((N, LENGTH)) < 0.5] = IGNORED
    return {
        "targets": targets,
        "loss_mask": np.array([1, 1, 0, 1], np.float32),
        "teacher_logits": normal(N, LENGTH, C),
    }


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_tokens_are_distilled_as_torch_does(weight):
    torch = pytest.importorskip("torch", reason="torch is in the parity extra")
    temperature, logits, batch = 3.0, normal(N, LENGTH, C), token_batch()
    loss_fn = distillation_loss(cross_entropy, weight=weight, temperature=temperature)

    def mean(logits):
        total, count = loss_fn(logits, batch)
        return total / count

    value, grads = jax.jit(jax.value_and_grad(mean))(logits)

    real = (batch["targets"] != IGNORED) & (batch["loss_mask"][:, None] > 0)
    student = torch.tensor(logits, requires_grad=True)
    chosen, teacher = student[real], torch.tensor(batch["teacher_logits"][real])
    hard = torch.nn.CrossEntropyLoss()(
        chosen, torch.tensor(batch["targets"][real]).long()
    )
    soft = torch.nn.KLDivLoss(reduction="batchmean")(
        torch.log_softmax(chosen / temperature, -1),
        torch.softmax(teacher / temperature, -1),
    )
    expected = (1 - weight) * hard + weight * temperature**2 * soft
    expected.backward()
    np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
    np.testing.assert_allclose(grads, student.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_every_kind_by_hand():
    batch = {
        "targets": np.zeros((N, 2), np.int32),
        "loss_mask": np.array([1, 0, 1, 1], np.float32),
    }
    real = batch["loss_mask"] > 0

    def softmax(x):
        return np.exp(x) / np.exp(x).sum(-1, keepdims=True)

    def kl(p, q):
        return (p * np.log(p / q)).sum(-1)

    def bernoulli(x):
        p = 1 / (1 + np.exp(-x))
        return np.stack([p, 1 - p], -1)

    by_hand = {
        "softmax": lambda p, q: kl(softmax(p / 2), softmax(q / 2)).sum(),
        "sigmoid": lambda p, q: kl(bernoulli(p / 2), bernoulli(q / 2)).sum(),
        "span": lambda p, q: kl(
            softmax(p.swapaxes(1, 2) / 2), softmax(q.swapaxes(1, 2) / 2)
        ).sum() / 2,
        "squared": lambda p, q: np.square(p / 2 - q / 2).sum(),
    }  # fmt: skip
    shapes = {"softmax": (2, C), "sigmoid": (C,), "span": (LENGTH, 2), "squared": (1,)}
    assert DIVERGENCES.keys() == by_hand.keys()
    for kind, divergence_fn in DIVERGENCES.items():
        p, q = normal(N, *shapes[kind]), normal(N, *shapes[kind])
        distance = divergence_fn(p, q, batch, temperature=2.0)
        expected = by_hand[kind](p[real].astype(np.float64), q[real])
        np.testing.assert_allclose(distance, expected, rtol=1e-5)
        zero = divergence_fn(p, p, batch, temperature=2.0)
        np.testing.assert_allclose(zero, 0.0, atol=1e-6)


def test_the_temperature_of_a_regression_cancels():
    outputs, batch = normal(N, 1), {"loss_mask": np.ones(N, np.float32)}
    batch["teacher_logits"] = normal(N, 1)
    cold, hot = (
        distillation_loss(
            nothing,
            weight=1.0,
            temperature=temperature,
            divergence_fn=DIVERGENCES["squared"],
        )(outputs, batch)[0]
        for temperature in (1.0, 5.0)
    )
    np.testing.assert_allclose(cold, hot, rtol=1e-6)
    expected = np.square(outputs - batch["teacher_logits"]).sum()
    np.testing.assert_allclose(cold, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("weight", "temperature"), [(-0.1, 1.0), (1.1, 1.0), (0.5, 0.0)]
)
def test_settings_out_of_range_are_refused(weight, temperature):
    with pytest.raises(InputError, match=rf"weight={weight}.*={temperature}"):
        distillation_loss(cross_entropy, weight=weight, temperature=temperature)


def test_a_batch_without_a_fitting_teacher_is_refused():
    loss_fn, batch = distillation_loss(cross_entropy, weight=0.5), token_batch()
    with pytest.raises(InputError, match=r"\(4, 6, 5\), but the model's .*\(4, 6, 7\)"):
        loss_fn(normal(N, LENGTH, 7), batch)
    del batch["teacher_logits"]
    with pytest.raises(InputError, match=r"no teacher_logits.*'targets'"):
        loss_fn(normal(N, LENGTH, C), batch)
