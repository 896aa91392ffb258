# SPDX-License-Identifier: Apache-2.0
import jax.numpy as jnp
import numpy as np
import pytest

from jft.params import interpolate
from jft.types import InputError


def draw(seed, **shapes):
    rng = np.random.default_rng(seed)
    return {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}


def test_a_point_between_two_models_is_the_papers_and_the_ends_are_exact():
    old, new = draw(0, w=(3, 2), b=2), draw(1, w=(3, 2), b=2)
    for alpha in (0.0, 0.3, 1.0):
        point = interpolate(old, new, alpha)
        for name in old:
            expected = np.float64(old[name]) + alpha * np.float64(new[name] - old[name])
            np.testing.assert_allclose(point[name], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(interpolate(old, new, 0.0)["w"], old["w"])
    np.testing.assert_array_equal(interpolate(old, new, 1.0)["w"], new["w"])


def test_heads_that_are_kept_are_the_second_models():
    old = draw(0, body=2, old_head=3) | {"head": np.zeros(3)}
    new = draw(1, body=2, head=4)
    point = interpolate(old, new, 0.5, keep=["head"])
    assert set(point) == {"body", "head"}
    np.testing.assert_array_equal(point["head"], new["head"])


def test_half_precision_is_mixed_in_float32():
    old = {"w": jnp.full(1, 256.0, jnp.bfloat16)}
    new = {"w": jnp.full(1, 258.0, jnp.bfloat16)}
    point = interpolate(old, new, 0.999)
    assert point["w"].dtype == jnp.bfloat16
    assert float(point["w"][0]) == 258.0


@pytest.mark.parametrize(
    ("alpha", "new", "words"),
    [
        (-0.1, {"w": (2,)}, "alpha is -0.1"),
        (1.1, {"w": (2,)}, "alpha is 1.1"),
        (0.5, {"w": (3,)}, r"'w': \(\(2,\), \(3,\)\)"),
        (0.5, {"w": (2,), "b": (1,)}, r"Only in the second: \['b'\]"),
    ],
)
def test_models_that_are_not_alike_are_refused(alpha, new, words):
    with pytest.raises(InputError, match=words):
        interpolate(draw(0, w=(2,)), draw(1, **new), alpha)
