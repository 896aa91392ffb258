# SPDX-License-Identifier: Apache-2.0
"""Activations are transformers' formulas; GELU's slope is exact and keeps x alone."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jft.models.nonlinearities import ACTIVATIONS, gelu


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_is_transformers_formula(name):
    formulas = {
        "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
        "gelu_new": lambda x: (
            x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
        ),
        "quick_gelu": lambda x: x / (1 + math.exp(-1.702 * x)),
        "relu": lambda x: max(x, 0.0),
        "silu": lambda x: x / (1 + math.exp(-x)),
        "tanh": math.tanh,
    }
    formulas["gelu_pytorch_tanh"] = formulas["gelu_fast"] = formulas["gelu_new"]
    formulas["swish"] = formulas["silu"]
    assert formulas.keys() == ACTIVATIONS.keys()
    xs = np.linspace(-3, 3, 13, dtype=np.float32)
    expected = [formulas[name](float(x)) for x in xs]
    np.testing.assert_allclose(ACTIVATIONS[name](jnp.asarray(xs)), expected, atol=2e-6)


@pytest.mark.parametrize(
    ("dtype", "atol"), [("float64", 1e-14), ("float32", 1e-6), ("bfloat16", 0.02)]
)
def test_the_slope_of_gelu_is_that_of_its_formula(dtype, atol):
    with jax.enable_x64(True):
        x = jnp.linspace(-6, 6, 101).astype(dtype)
        y, vjp = jax.vjp(gelu, x)
        (slope,) = vjp(jnp.ones_like(y))
        assert y.dtype == slope.dtype == x.dtype
        at = x.astype(jnp.float64)
        plain = jax.vmap(jax.grad(lambda x: x * jax.scipy.stats.norm.cdf(x)))
        np.testing.assert_allclose(slope.astype(float), plain(at), atol=atol)


def test_gelu_keeps_its_input_alone_for_the_backward_pass():
    x = jnp.linspace(-1, 1, 7)
    _, vjp = jax.vjp(lambda x: gelu(x * 2), x)
    assert [leaf.size for leaf in jax.tree.leaves(vjp)].count(x.size) == 1
