# SPDX-License-Identifier: Apache-2.0
import math

import jax.numpy as jnp
import numpy as np
import pytest

from jft.models.activations import ACTIVATIONS


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
