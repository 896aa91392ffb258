# SPDX-License-Identifier: Apache-2.0
"""An old head set aside outlives training and comes back with nothing else changed."""

import jax.numpy as jnp
import numpy as np
import pytest

from jft.evals import put_head_back, set_head_aside
from jft.types import InputError

DATA = np.random.default_rng(0)


def draw(*shape):
    return jnp.asarray(DATA.normal(size=shape), jnp.float32)


SOURCE = {"body": {"kernel": draw(4, 8)}, "head": {"kernel": draw(8, 5)}}
TUNED = {"body": {"kernel": draw(4, 8)}, "head": {"kernel": draw(8, 2)}}


def test_what_is_kept_aside_outlives_the_donated_original():
    params = {"body": draw(3), "head": draw(3)}
    expected = np.array(params["head"])
    aside = set_head_aside(params, head="head")
    params["head"].delete()
    np.testing.assert_array_equal(aside["head"], expected)


def test_putting_back_changes_the_head_only_and_not_the_given_tree():
    back = put_head_back(TUNED, set_head_aside(SOURCE, head="head/.*"))
    assert back["body"]["kernel"] is TUNED["body"]["kernel"]
    np.testing.assert_array_equal(back["head"]["kernel"], SOURCE["head"]["kernel"])
    assert TUNED["head"]["kernel"].shape == (8, 2)


def test_a_head_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r"'hea'.*\['body/kernel', 'head/kernel'\]"):
        set_head_aside(SOURCE, head="hea")


def test_a_head_of_another_kind_is_put_beside_the_new_one():
    back = put_head_back(TUNED, {"words/bias": np.ones(5)})
    np.testing.assert_array_equal(back["words"]["bias"], np.ones(5))
    assert back["head"]["kernel"] is TUNED["head"]["kernel"]
