# SPDX-License-Identifier: Apache-2.0
"""EWC's pull is the gradient of the paper's penalty, in its place in chain and step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jft.optim import ewc, make_optimizer, penalty_of, with_fisher
from jft.train import init_state, make_train_step
from jft.types import InputError


def test_the_pull_is_the_gradient_of_the_papers_penalty():
    rng = np.random.default_rng(0)
    start, now, fisher = ({"w": rng.normal(size=5)} for _ in range(3))
    fisher["w"] = np.abs(fisher["w"])
    tx = ewc(0.7)
    state = with_fisher(tx.init(jax.tree.map(jnp.asarray, start)), fisher)

    def penalty(w):
        return 0.7 / 2 * np.sum(fisher["w"] * (w - start["w"]) ** 2)

    steps = 1e-3 * np.eye(5)
    slopes = [(penalty(now["w"] + d) - penalty(now["w"] - d)) / 2e-3 for d in steps]
    zero = {"w": jnp.zeros(5)}
    updates, state = tx.update(zero, state, jax.tree.map(jnp.asarray, now))
    np.testing.assert_allclose(updates["w"], slopes, rtol=1e-4)
    np.testing.assert_allclose(penalty_of(state), penalty(now["w"]), rtol=1e-5)


def test_without_a_fisher_and_outside_the_mask_nothing_is_pulled():
    tx = ewc(1.0, lambda path, leaf: path == "body")
    start = {"body": jnp.ones(1), "head": jnp.ones(1), "hole": None}
    now = {"body": jnp.zeros(1), "head": jnp.zeros(1), "hole": None}
    zero = jax.tree.map(jnp.zeros_like, now)
    state = tx.init(start)
    assert state.anchor["head"] is state.fisher["head"] is None
    for given, body in ((state, 0.0), (with_fisher(state, {"body": jnp.ones(1)}), -1)):
        updates, _ = tx.update(zero, given, now)
        np.testing.assert_array_equal(updates["body"], [body])
        np.testing.assert_array_equal(updates["head"], [0.0])
        assert updates["hole"] is None


def test_it_comes_before_the_clip_and_the_moments():
    labels, start = {"w": "all"}, {"w": jnp.zeros(1)}
    tx = make_optimizer(
        labels, optimizer="sgd", learning_rate=1.0, ewc=10.0, clip_norm=0.5,
        hyperparams={"momentum": 0.9},
    )  # fmt: skip
    state = with_fisher(tx.init(start), {"w": jnp.ones(1)})
    params = {"w": jnp.ones(1)}
    updates, state = tx.update({"w": jnp.zeros(1)}, state, params)
    np.testing.assert_allclose(updates["w"], [-0.5], rtol=1e-6)  # clipped
    updates, _ = tx.update({"w": jnp.zeros(1)}, state, start)
    assert float(updates["w"][0]) < -0.3  # momentum of the penalty's own gradient


def test_closed_groups_are_not_pulled():
    labels = {"low": "all", "high": "all"}
    tx = make_optimizer(
        labels, optimizer="sgd", learning_rate=1.0, ewc=1.0,
        layer_index={"low": 0, "high": 1}.__getitem__,
        open_at={1: 0, 0: 5},
    )  # fmt: skip
    start, now = ({k: jnp.full(1, x) for k in labels} for x in (0.0, 1.0))
    state = with_fisher(tx.init(start), {k: jnp.ones(1) for k in labels})
    updates, _ = tx.update(
        jax.tree.map(jnp.zeros_like, now), state, now, step=jnp.zeros((), int)
    )
    np.testing.assert_array_equal(updates["low"], [0.0])
    assert float(updates["high"][0]) < 0


@pytest.mark.parametrize("open_at", [None, {0: 0, 1: 5}])
def test_a_step_says_its_penalty_beside_its_loss(open_at):
    """That of the parameters which the loss is of, closed ones too."""
    labels = {"low": "all", "high": "all"}
    tx = make_optimizer(
        labels, optimizer="sgd", learning_rate=0.5, ewc=0.6,
        layer_index={"low": 0, "high": 1}.__getitem__, open_at=open_at,
    )  # fmt: skip
    start, fisher = ({k: jnp.full(2, x) for k in labels} for x in (1.0, 3.0))
    state = init_state(start, labels, tx=tx, key=jax.random.key(0))
    state = state._replace(opt_state=with_fisher(state.opt_state, fisher))

    def total(outputs, batch):
        return sum(jnp.sum(x) for x in outputs.values()) * batch["x"], jnp.ones(())

    step = make_train_step(lambda params, batch, *, key: params, total, tx, labels)
    moved = {k: np.ones(2) for k in labels}
    for _ in range(3):
        expected = 0.6 / 2 * sum(np.sum(3 * (x - 1) ** 2) for x in moved.values())
        loss = sum(np.sum(x) for x in moved.values())
        state, metrics = step(state, {"x": np.float32(1)})
        np.testing.assert_allclose(metrics["penalty"], expected, rtol=1e-5)
        np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
        moved = {k: np.asarray(x) for k, x in state.params.items()}
    assert expected > 0.1
    assert np.array_equal(moved["high"], start["high"]) == (open_at is not None)


def test_without_ewc_there_is_no_penalty():
    params = {"w": jnp.ones(1)}
    tx = make_optimizer({"w": "all"}, optimizer="sgd", learning_rate=0.1, l2_sp=1.0)
    assert penalty_of(tx.init(params)) is None


def test_half_precision_has_its_fisher_in_float32_and_its_own_updates():
    start = {"w": jnp.zeros(2, jnp.bfloat16)}
    tx = ewc(1.0)
    state = with_fisher(tx.init(start), {"w": np.full(2, 1e-3)})
    assert state.fisher["w"].dtype == jnp.float32
    updates, _ = tx.update(start, state, {"w": jnp.ones(2, jnp.bfloat16)})
    assert updates["w"].dtype == jnp.bfloat16


def test_a_given_fisher_outlives_the_state():
    start, fisher = {"w": jnp.ones(2)}, {"w": jnp.ones(2)}
    state = with_fisher(ewc(0.1).init(start), fisher)
    jax.jit(lambda x: x, donate_argnums=0)(state.fisher)
    assert not fisher["w"].is_deleted()


def test_what_does_not_fit_is_refused():
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    with pytest.raises(InputError, match="strength of EWC is -1"):
        ewc(-1.0)
    with pytest.raises(InputError, match="no place for a Fisher"):
        with_fisher(optax.sgd(0.1).init(params), params)
    for fisher in ({"a": jnp.ones(2)}, {"a": jnp.ones(2), "b": jnp.ones(3)}):
        with pytest.raises(InputError, match=r"lacks \['b'\], or has another shape"):
            with_fisher(ewc(1.0).init(params), fisher)
