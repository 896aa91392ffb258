# SPDX-License-Identifier: Apache-2.0
"""Losses of pairs are torch's and those by hand; padding is no negative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jft.train import cosine_regression, in_batch_contrastive
from jft.train.contrastive import cosine_similarity

RNG = np.random.default_rng(0)
N, D = 5, 8


def normal(*shape):
    return np.asarray(RNG.normal(size=shape), np.float32)


def cosines(a, b):
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    return a.astype(np.float64) @ b.T


def by_hand(scores, candidates=None):
    """Mean of ``-log softmax`` of the diagonal, row by row."""
    losses = []
    for i, row in enumerate(scores):
        among = row if candidates is None else row[candidates[i]]
        losses.append(np.log(np.exp(among).sum()) - row[i])
    return np.sum(losses)


def test_in_batch_loss_is_torchs_cross_entropy_of_cosines():
    torch = pytest.importorskip("torch", reason="torch is in the parity extra")
    a, b = normal(N, D), normal(N, D)
    theirs = [torch.tensor(x) for x in (a, b)]
    scores = 20.0 * torch.nn.functional.cosine_similarity(
        theirs[0][:, None], theirs[1][None], dim=-1
    )
    cross_entropy = torch.nn.CrossEntropyLoss()
    forward, backward = (cross_entropy(s, torch.arange(N)) for s in (scores, scores.T))
    total, weight = in_batch_contrastive(a, b)
    np.testing.assert_allclose(total / weight, forward.item(), rtol=1e-5)
    total, weight = in_batch_contrastive(a, b, symmetric=True)
    both = (forward + backward).item() / 2
    np.testing.assert_allclose(total / weight, both, rtol=1e-5)


@pytest.mark.parametrize("symmetric", [False, True])
def test_padding_is_no_anchor_and_no_negative(symmetric):
    a, b = normal(N, D), normal(N, D)

    @jax.jit
    def run(a, b, mask):
        def summed(a, b):
            sums = in_batch_contrastive(a, b, loss_mask=mask, symmetric=symmetric)
            return sums[0], sums

        return jax.grad(summed, argnums=(0, 1), has_aux=True)(a, b)

    expected, sums = run(a, b, np.ones(N, np.float32))
    for filler in (np.zeros((2, D), np.float32), a[:2]):  # zeros, and hard negatives
        padded = (np.concatenate([x, filler]) for x in (a, b))
        mask = (np.arange(N + 2) < N).astype(np.float32)
        grads, padded_sums = run(*padded, mask)
        np.testing.assert_allclose(padded_sums, sums, rtol=1e-6)
        for grad, wanted in zip(grads, expected, strict=True):
            np.testing.assert_allclose(grad[:N], wanted, rtol=1e-5, atol=1e-6)
            assert not np.asarray(grad[N:]).any()


@pytest.mark.parametrize("symmetric", [False, True])
def test_rows_with_the_same_partner_are_no_negatives(symmetric):
    a, b = normal(N, D), normal(N, D)
    ids = np.array([7, 3, 7, 4, 3])
    total, weight = in_batch_contrastive(
        a, b, scale=5.0, symmetric=symmetric, positive_ids=ids
    )
    candidates = (ids[:, None] != ids[None]) | np.eye(N, dtype=bool)
    scores = 5.0 * cosines(a, b)
    expected = by_hand(scores, candidates)
    if symmetric:
        expected = (expected + by_hand(scores.T, candidates)) / 2
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert weight == N


def test_length_of_an_embedding_does_not_matter():
    a, b = normal(N, D), normal(N, D)
    np.testing.assert_allclose(
        in_batch_contrastive(3 * a, b / 7), in_batch_contrastive(a, b), rtol=1e-5
    )


def test_bfloat16_embeddings_are_scored_in_float32():
    low = [jnp.asarray(normal(N, D), jnp.bfloat16) for _ in range(2)]
    total, weight = in_batch_contrastive(*low)
    assert total.dtype == weight.dtype == jnp.float32
    wide = [x.astype(jnp.float32) for x in low]
    np.testing.assert_allclose(total, in_batch_contrastive(*wide)[0], rtol=1e-6)


def test_cosine_regression_by_hand():
    a, b, targets = normal(N, D), normal(N, D), normal(N)
    expected = np.square(np.diag(cosines(a, b)) - targets)
    mask = np.array([1, 0, 1, 1, 0], np.float32)
    total, weight = cosine_regression(a, b, targets, loss_mask=mask)
    np.testing.assert_allclose(total, (expected * mask).sum(), rtol=1e-5)
    assert weight == 3


def test_a_zero_embedding_has_a_finite_gradient():
    grads = jax.grad(lambda x: cosine_similarity(x, jnp.ones((1, 3)))[0])(
        jnp.zeros((1, 3))
    )
    assert np.isfinite(grads).all()
