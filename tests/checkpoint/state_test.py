# SPDX-License-Identifier: Apache-2.0
"""A state becomes arrays that leave out what is frozen, and comes back the same."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jft.checkpoint import state_arrays, with_arrays
from jft.train import init_state


@pytest.fixture
def state():
    params = {"head": jnp.ones(2), "body": jnp.zeros(3)}
    labels = {"head": "head", "body": "frozen"}
    return init_state(params, labels, tx=optax.adam(1e-3), key=jax.random.key(3))


def test_frozen_leaves_are_kept_only_where_that_is_asked(state):
    assert "frozen" not in state_arrays(state)
    np.testing.assert_array_equal(
        state_arrays(state, full=True)["frozen"]["body"], np.zeros(3)
    )


def test_a_state_comes_back_from_its_arrays(state):
    other = state._replace(step=state.step + 7, key=jax.random.key(4))
    back = with_arrays(other, state_arrays(state))
    assert jax.tree.structure(back) == jax.tree.structure(state)
    assert int(back.step) == 0
    np.testing.assert_array_equal(
        jax.random.key_data(back.key), jax.random.key_data(state.key)
    )
