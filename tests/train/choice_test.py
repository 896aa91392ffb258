# SPDX-License-Identifier: Apache-2.0
"""A step that the open groups choose."""

import jax
import jax.numpy as jnp
import optax

from jft.train import choose_step, init_state, make_train_step

LABELS = {"low": "all", "high": "all"}
GROUPS = {"low": 0, "high": 1}


def make(name, factor):
    """A step of plain gradient descent on a factor times the sum."""

    def loss(outputs, batch):
        return factor * (outputs["low"] + outputs["high"]) * batch["x"], jnp.ones(())

    return make_train_step(
        lambda params, batch, *, key: params,
        loss,
        optax.sgd(1.0),
        LABELS,
        group_of=GROUPS.__getitem__,
        metric_fns={name: loss},
    )


def test_each_set_of_groups_has_its_step_called_and_compiled():
    steps = {False: make("alone", 1.0), True: make("both", 3.0)}
    chosen = choose_step(
        lambda groups: steps[groups is None or 0 in groups],
        group_of=GROUPS.__getitem__,
    )
    batch = {"x": jnp.ones(())}
    for groups, name, low, high in (
        (frozenset({1}), "alone", 0.0, -1.0),
        (frozenset({0, 1}), "both", -3.0, -3.0),
        (None, "both", -3.0, -3.0),
    ):
        for ahead in (False, True):
            params = {"low": jnp.zeros(()), "high": jnp.zeros(())}
            tx = optax.sgd(1.0)
            state = init_state(params, LABELS, tx=tx, key=jax.random.key(0))
            if ahead:
                program = chosen.compile(state, batch, open_groups=groups)
                state, metrics = program(state, batch)
            else:
                state, metrics = chosen(state, batch, open_groups=groups)
            assert name in metrics
            assert len(metrics.keys() & {"alone", "both"}) == 1
            assert (float(state.params["low"]), float(state.params["high"])) == (
                low,
                high,
            )
