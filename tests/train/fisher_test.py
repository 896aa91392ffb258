# SPDX-License-Identifier: Apache-2.0
"""Fisher's diagonal equals its closed form, in any batches, with any padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jft.train import (
    DRAWS,
    diagonal_fisher,
    in_batch_contrastive,
    softmax_cross_entropy,
)
from jft.types import InputError

D = 3
LABELS = {"w": "moves", "b": "frozen"}


def apply_fn(params, batch, *, key):
    """Logistic regression: the logit of class 1; class 0 has 0."""
    assert key is None
    logit = batch["x"] @ params["w"] + params["b"]
    return jnp.stack([jnp.zeros_like(logit), logit], axis=-1)


def loss_fn(outputs, batch):
    return softmax_cross_entropy(
        outputs, batch["targets"], loss_mask=batch["loss_mask"]
    )


def make(num, seed=0):
    rng = np.random.default_rng(seed)
    params = {"w": rng.normal(size=D), "b": rng.normal()}
    batch = {
        "x": rng.normal(size=(num, D)),
        "targets": rng.integers(0, 2, num),
        "loss_mask": np.ones(num),
    }
    probability = 1 / (1 + np.exp(-(batch["x"] @ params["w"] + params["b"])))
    as_float32 = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    return as_float32, {k: cast(v) for k, v in batch.items()}, probability


def cast(x):
    return x.astype(np.int32 if x.dtype.kind == "i" else np.float32)


def test_with_the_datas_targets_it_is_the_squared_residual_times_x():
    params, batch, p = make(6)
    found = diagonal_fisher(apply_fn, loss_fn, params, LABELS, [batch])
    residual = (p - batch["targets"])[:, None]
    np.testing.assert_allclose(
        found["w"], np.mean((residual * batch["x"]) ** 2, axis=0), rtol=1e-5
    )
    assert found["b"] is None


def test_with_drawn_targets_it_is_p_times_one_minus_p_times_x_squared():
    params, batch, p = make(4)
    many = {k: np.repeat(v, 3000, axis=0) for k, v in batch.items()}
    found = diagonal_fisher(
        apply_fn, loss_fn, params, LABELS, [many],
        draw_fn=DRAWS["softmax"], key=jax.random.key(0),
    )  # fmt: skip
    exact = np.mean((p * (1 - p))[:, None] * batch["x"] ** 2, axis=0)
    np.testing.assert_allclose(found["w"], exact, rtol=0.05)
    empirical = np.mean((p - batch["targets"])[:, None] ** 2 * batch["x"] ** 2, axis=0)
    assert np.any(np.abs(empirical / exact - 1) > 0.3)  # or there is no difference


def test_any_division_into_batches_and_any_padding_give_the_same():
    params, batch, _ = make(7)
    whole = diagonal_fisher(apply_fn, loss_fn, params, LABELS, [batch])
    parts = [{k: v[a:b] for k, v in batch.items()} for a, b in ((0, 3), (3, 7))]
    padding = {k: np.repeat(v[:2], 2, axis=0) for k, v in batch.items()}
    padding["loss_mask"] = np.zeros(4, np.float32)
    padding["x"][0] = np.nan  # nor does what lies in it count
    found = diagonal_fisher(apply_fn, loss_fn, params, LABELS, [*parts, padding])
    np.testing.assert_allclose(found["w"], whole["w"], rtol=1e-5)


def test_multilabel_targets_are_drawn_class_by_class():
    logits = jnp.array([[2.0, -1.0]])
    batch = {"targets": jnp.zeros((1, 2))}
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = jax.vmap(lambda key: DRAWS["sigmoid"](logits, batch, key))(keys)
    expected = 1 / (1 + np.exp(-np.array([[2.0, -1.0]])))
    np.testing.assert_allclose(jnp.mean(drawn, axis=0), expected, atol=0.03)


def test_a_token_without_a_target_gets_none():
    batch = {"targets": jnp.array([[1, -100]])}
    drawn = DRAWS["softmax"](jnp.zeros((1, 2, 5)), batch, jax.random.key(0))
    assert int(drawn[0, 1]) == -100
    assert 0 <= int(drawn[0, 0]) < 5


def test_what_gives_no_fisher_is_refused():
    params, batch, _ = make(2)
    empty = batch | {"loss_mask": np.zeros(2, np.float32)}
    with pytest.raises(InputError, match="no real example"):
        diagonal_fisher(apply_fn, loss_fn, params, LABELS, [empty])
    with pytest.raises(InputError, match="key is None"):
        diagonal_fisher(
            apply_fn, loss_fn, params, LABELS, [batch], draw_fn=DRAWS["softmax"]
        )


def test_a_loss_among_the_rows_of_a_batch_is_refused_at_the_first_batch():
    params, batch, _ = make(4)

    def embed(params, batch, *, key):
        return batch["x"] * params["w"][None]

    def among_rows(outputs, batch):
        return in_batch_contrastive(outputs, batch["x"], loss_mask=batch["loss_mask"])

    def batches():
        yield batch | {"loss_mask": np.zeros(4, np.float32)}  # nothing to look at yet
        yield batch
        raise AssertionError("a second batch was read")

    with pytest.raises(InputError, match=r"the first 4 examples.*is 0.*in_batch"):
        diagonal_fisher(embed, among_rows, params, LABELS, batches())
