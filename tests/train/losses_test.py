# SPDX-License-Identifier: Apache-2.0
"""Hand formulas, torch's own losses, and that no grouping of rows moves a mean."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from jft.data.fields.padding import IGNORED
from jft.train import (
    DIVERGENCES,
    balanced_class_weights,
    cosine_regression,
    count_correct,
    distillation_loss,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
    span_cross_entropy,
    squared_error,
)
from jft.types import InputError

RNG = np.random.default_rng(1)
N, LENGTH, C = 6, 5, 4
CLASS_WEIGHTS = np.array([0.5, 2.0, 0.0, 1.3], np.float32)


def normal(*shape):
    return np.asarray(RNG.normal(size=shape) * 3, np.float32)


def ids(*shape, high=C):
    return RNG.integers(0, high, shape, np.int32)


def some_ignored(targets):
    return np.where(RNG.random(targets.shape) < 0.4, np.int32(IGNORED), targets)


def reference(logits, targets, smoothing):
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    classes = logits.shape[-1]
    target = np.eye(classes)[targets] * (1 - smoothing) + smoothing / classes
    return -(target * log_p).sum(-1)


def softmax_of(**options):
    return lambda outputs, batch: softmax_cross_entropy(
        outputs, batch["targets"], loss_mask=batch["loss_mask"], **options
    )


def sigmoid_of(**options):
    return lambda outputs, batch: sigmoid_cross_entropy(
        outputs, batch["targets"], loss_mask=batch["loss_mask"], **options
    )


def squared(outputs, batch):
    return squared_error(outputs, batch["targets"], loss_mask=batch["loss_mask"])


def span(outputs, batch):
    mask = batch["attention_mask"]
    return span_cross_entropy(
        outputs, batch["targets"], attention_mask=mask, loss_mask=batch["loss_mask"]
    )


def cosines(outputs, batch):
    a, b = outputs[:, 0], outputs[:, 1]
    return cosine_regression(a, b, batch["targets"], loss_mask=batch["loss_mask"])


def correct(outputs, batch):
    return count_correct(outputs, batch["targets"], loss_mask=batch["loss_mask"])


def distilled(loss, kind):
    return distillation_loss(
        loss, weight=0.3, temperature=2.0, divergence_fn=DIVERGENCES[kind]
    )


# shape of the outputs of a row, targets of N rows, loss
CLASSES = ((C,), ids(N))
TOKENS = ((LENGTH, C), some_ignored(ids(N, LENGTH)))
HOT = ((C,), ids(N, C, high=2).astype(np.float32))
SPANS = ((LENGTH, 2), ids(N, 2, high=2))
CASES = {
    "classes": (*CLASSES, softmax_of()),
    "classes smoothed": (*CLASSES, softmax_of(label_smoothing=0.1)),
    "classes weighted": (*CLASSES, softmax_of(class_weights=CLASS_WEIGHTS)),
    "classes focal": (*CLASSES, softmax_of(focal_gamma=2.0)),
    "classes distilled": (*CLASSES, distilled(softmax_of(), "softmax")),
    "classes counted": (*CLASSES, correct),
    "tokens": (*TOKENS, softmax_of()),
    "tokens with all": (
        *TOKENS,
        softmax_of(
            label_smoothing=0.1, class_weights=CLASS_WEIGHTS, focal_gamma=1.5
        ),
    ),
    "tokens distilled": (*TOKENS, distilled(softmax_of(), "softmax")),
    "tokens counted": (*TOKENS, correct),
    "multi-label": (*HOT, sigmoid_of()),
    "multi-label with all": (
        *HOT, sigmoid_of(pos_weight=CLASS_WEIGHTS, focal_gamma=2.0)
    ),
    "multi-label distilled": (*HOT, distilled(sigmoid_of(), "sigmoid")),
    "regression": ((), normal(N), squared),
    "regression in a column": ((1,), normal(N), squared),
    "regression distilled": ((1,), normal(N), distilled(squared, "squared")),
    "spans": (*SPANS, span),
    "spans distilled": (*SPANS, distilled(span, "span")),
    "cosines": ((2, 8), normal(N), cosines),
}  # fmt: skip


def make_case(name):
    """Outputs, batch and loss; the last three tokens of two rows are padding."""
    shape, targets, loss = CASES[name]
    real = np.ones((N, LENGTH), np.int32)
    real[1:3, 2:] = 0
    batch = {
        "targets": targets,
        "loss_mask": np.array([1, 1, 0, 1, 0.5, 1], np.float32),
        "attention_mask": real,
        "teacher_logits": normal(N, *shape),
    }
    return normal(N, *shape), batch, loss


def answers(loss, outputs, batch):
    """``((sum, weight), gradient of the sum)``, in one program."""

    @jax.jit
    def run(outputs, batch):
        def summed(outputs):
            total, weight = loss(outputs, batch)
            return total, (total, weight)

        grads, sums = jax.grad(summed, has_aux=True)(outputs)
        return sums, grads

    return jax.tree.map(np.asarray, run(outputs, batch))


def gradient(loss, outputs, batch):
    return answers(loss, outputs, batch)[1]


@pytest.mark.parametrize("name", CASES)
def test_any_grouping_has_the_same_sums_and_gradients(name):
    outputs, batch, loss = make_case(name)
    sums, grads = answers(loss, outputs, batch)
    assert sums[0] > 0
    parts = [
        answers(loss, outputs[rows], {name: x[rows] for name, x in batch.items()})
        for rows in (slice(0, 2), slice(2, 6))
    ]
    np.testing.assert_allclose(np.sum([p[0] for p in parts], axis=0), sums, rtol=2e-6)
    joined = np.concatenate([p[1] for p in parts])
    np.testing.assert_allclose(joined, grads, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_rows_of_padding_change_nothing(name):
    outputs, batch, loss = make_case(name)
    padded = {
        name: np.concatenate([values, np.zeros_like(values[:2])])
        for name, values in batch.items()
    }
    longer = np.concatenate([outputs, np.zeros_like(outputs[:2])])
    sums, grads = answers(loss, longer, padded)
    assert not grads[N:].any()
    expected = answers(loss, outputs, batch)
    np.testing.assert_allclose(sums, expected[0], rtol=1e-6)
    np.testing.assert_allclose(grads[:N], expected[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_bfloat16_outputs_are_summed_in_float32(name):
    outputs, batch, loss = make_case(name)
    low = jnp.asarray(outputs, jnp.bfloat16)
    total, weight = jax.jit(loss)(low, batch)
    assert total.dtype == weight.dtype == jnp.float32
    (expected, _), _ = answers(loss, np.asarray(low, np.float32), batch)
    np.testing.assert_allclose(total, expected, rtol=1e-6)


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


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, CLASS_WEIGHTS])
def test_cross_entropy_of_tokens_is_torchs(smoothing, weights):
    torch = pytest.importorskip("torch", reason="torch is in the parity extra")
    logits, targets = normal(N, LENGTH, C), some_ignored(ids(N, LENGTH))
    theirs = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.CrossEntropyLoss(
        weight=None if weights is None else torch.tensor(weights),
        label_smoothing=smoothing,
    )(theirs.reshape(-1, C), torch.tensor(targets).long().reshape(-1))
    expected.backward()

    def mean(logits):
        total, weight = softmax_cross_entropy(
            logits, targets, label_smoothing=smoothing, class_weights=weights
        )
        return total / weight

    value, grads = jax.value_and_grad(mean)(logits)
    np.testing.assert_allclose(value, expected.item(), rtol=1e-6)
    np.testing.assert_allclose(grads, theirs.grad.numpy(), rtol=1e-4, atol=1e-7)


def test_shifted_targets_give_the_next_token_loss_of_torch():
    torch = pytest.importorskip("torch", reason="torch is in the parity extra")
    logits, tokens = normal(N, LENGTH, C), ids(N, LENGTH)
    theirs, labels = torch.tensor(logits), torch.tensor(tokens)
    expected = torch.nn.functional.cross_entropy(
        theirs[:, :-1].reshape(-1, C), labels[:, 1:].long().reshape(-1)
    )
    targets = np.pad(tokens[:, 1:], ((0, 0), (0, 1)), constant_values=IGNORED)
    total, weight = softmax_cross_entropy(logits, targets)
    assert weight == N * (LENGTH - 1)
    np.testing.assert_allclose(total / weight, expected.item(), rtol=1e-6)


def test_a_row_without_targets_weighs_nothing():
    targets = jnp.asarray([[1, IGNORED], [IGNORED, IGNORED], [3, 0]])
    mask = jnp.asarray([1.0, 1.0, 0.5])
    _, weight = softmax_cross_entropy(normal(3, 2, C), targets, loss_mask=mask)
    assert weight == 1 + 0 + 2 * 0.5


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_by_hand(gamma):
    logits, targets = normal(N, C), ids(N)
    total, weight = softmax_cross_entropy(logits, targets, focal_gamma=gamma)
    losses = reference(logits.astype(np.float64), targets, 0.0)
    expected = ((1 - np.exp(-losses)) ** gamma * losses).sum()
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert weight == N


def test_focal_loss_of_two_classes_is_the_same_either_way():
    logits, targets = normal(N, 1), ids(N, 1, high=2)
    pairs = np.concatenate([np.zeros_like(logits), logits], axis=1)
    np.testing.assert_allclose(
        sigmoid_cross_entropy(logits, targets.astype(np.float32), focal_gamma=2.0),
        softmax_cross_entropy(pairs, targets[:, 0], focal_gamma=2.0),
        rtol=1e-5,
    )


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_gradients_are_finite_however_sure_the_model_is(gamma):
    gaps = np.repeat(np.array([0.0, 15.0, 30.0, 200.0], np.float32), 2)
    targets, mask = np.tile(np.array([0, 1], np.int32), 4), np.ones(8, np.float32)
    pairs = np.stack([gaps, np.zeros_like(gaps)], axis=1)
    hot = {"targets": np.eye(2, dtype=np.float32)[targets], "loss_mask": mask}
    one = {"targets": targets, "loss_mask": mask}
    for loss, batch in (
        (softmax_of(focal_gamma=gamma), one),
        (sigmoid_of(focal_gamma=gamma), hot),
    ):
        assert np.isfinite(gradient(loss, pairs, batch)).all()


@pytest.mark.parametrize("pos_weight", [None, CLASS_WEIGHTS])
def test_multi_label_loss_is_torchs(pos_weight):
    torch = pytest.importorskip("torch", reason="torch is in the parity extra")
    logits, targets = normal(N, C) * 20, HOT[1]
    total, weight = sigmoid_cross_entropy(logits, targets, pos_weight=pos_weight)
    expected = torch.nn.BCEWithLogitsLoss(
        pos_weight=None if pos_weight is None else torch.tensor(pos_weight)
    )(torch.tensor(logits), torch.tensor(targets))
    np.testing.assert_allclose(total / weight, expected.item(), rtol=1e-6)


def test_a_column_of_numbers_is_not_spread_over_the_targets():
    values, targets = normal(N), normal(N)
    expected = np.square(values - targets).sum(), N
    for outputs in (values, values[:, None]):
        np.testing.assert_allclose(squared_error(outputs, targets), expected, rtol=1e-6)


def test_span_loss_is_the_mean_of_torchs_two():
    torch = pytest.importorskip("torch", reason="torch is in the parity extra")
    logits, targets = normal(N, LENGTH, 2), ids(N, 2, high=LENGTH)
    theirs, ends = torch.tensor(logits), torch.tensor(targets)
    cross_entropy = torch.nn.CrossEntropyLoss()
    expected = sum(cross_entropy(theirs[..., i], ends[:, i].long()) for i in (0, 1)) / 2
    total, weight = span_cross_entropy(
        logits, targets, attention_mask=jnp.ones((N, LENGTH), jnp.int32)
    )
    np.testing.assert_allclose(total / weight, expected.item(), rtol=1e-6)
    assert weight == N


@pytest.mark.parametrize("kind", ["loss", "divergence"])
def test_padded_tokens_are_no_candidates_for_a_span(kind):
    outputs, batch, loss = make_case("spans")
    if kind == "divergence":
        loss = distillation_loss(loss, weight=1.0, divergence_fn=DIVERGENCES["span"])
    longer = np.pad(outputs, ((0, 0), (0, 3), (0, 0)), constant_values=50.0)
    teacher = np.pad(batch["teacher_logits"], ((0, 0), (0, 3), (0, 0)))
    mask = np.pad(batch["attention_mask"], ((0, 0), (0, 3)))
    padded = batch | {"attention_mask": mask, "teacher_logits": teacher}
    np.testing.assert_allclose(loss(longer, padded), loss(outputs, batch), rtol=1e-6)


def test_an_answer_among_the_padding_is_seen():
    outputs, batch, loss = make_case("spans")
    wrong = batch | {"targets": jnp.full((N, 2), LENGTH - 1)}
    assert not loss(outputs, wrong)[0] < 1e30


def test_padding_is_not_counted_as_correct():
    logits = jnp.asarray([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    correct, weight = count_correct(
        logits, jnp.asarray([0, 0, 0]), loss_mask=jnp.asarray([1.0, 1.0, 0.0])
    )
    assert (float(correct), float(weight)) == (1.0, 2.0)


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(InputError, match=r"\(5,\), but the targets have \(6, 5\)"):
        softmax_cross_entropy(*(normal(N, LENGTH, C), TOKENS[1]), loss_mask=jnp.ones(5))


def test_balanced_weights_are_scikit_learns():
    targets = RNG.integers(0, C, (40, 3))
    expected = compute_class_weight("balanced", classes=np.arange(C), y=targets.ravel())
    weights = balanced_class_weights(targets, num_classes=C)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    padded = np.concatenate([targets, np.full((7, 3), IGNORED)])
    np.testing.assert_array_equal(
        balanced_class_weights(padded, num_classes=C), weights
    )


@pytest.mark.parametrize(("num_classes", "fault"), [(5, "4"), (3, "3")])
def test_a_class_without_examples_has_no_balanced_weight(num_classes, fault):
    with pytest.raises(InputError, match=rf"at fault are \[{fault}\]"):
        balanced_class_weights(np.arange(4), num_classes=num_classes)
