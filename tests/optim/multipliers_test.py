# SPDX-License-Identifier: Apache-2.0
import jax.numpy as jnp
import numpy as np
import pytest

from jft.optim import scale_by_label
from jft.types import InputError

LABELS = {"a": "body", "b": {"c": "head", "d": "frozen", "e": "head"}}


def test_each_label_has_its_multiplier_and_the_others_one():
    tx = scale_by_label({"head": 10.0}, LABELS)
    updates = {
        "a": jnp.ones(2),
        "b": {"c": jnp.ones(2, jnp.bfloat16), "d": None, "e": jnp.ones(())},
    }
    scaled, _ = tx.update(updates, tx.init(updates))
    np.testing.assert_array_equal(scaled["a"], [1.0, 1.0])
    np.testing.assert_array_equal(scaled["b"]["c"].astype(float), [10.0, 10.0])
    assert scaled["b"]["c"].dtype == jnp.bfloat16
    assert scaled["b"]["d"] is None
    assert float(scaled["b"]["e"]) == 10.0


@pytest.mark.parametrize("name", ["heads", "frozen"])
def test_a_multiplier_of_nothing_trainable_is_refused(name):
    with pytest.raises(InputError, match=rf"\['{name}'\].*\['body', 'head'\]"):
        scale_by_label({name: 2.0}, LABELS)
