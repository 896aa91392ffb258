# SPDX-License-Identifier: Apache-2.0
"""The activations that a config.json may name in ``hidden_act``."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

# transformers' names; its "gelu" is the exact one, "gelu_new" and "gelu_fast" the tanh
# formula
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "gelu_fast": nn.gelu,
    "gelu_new": nn.gelu,
    "gelu_pytorch_tanh": nn.gelu,
    "quick_gelu": lambda x: x * nn.sigmoid(jnp.asarray(1.702, x.dtype) * x),
    "relu": nn.relu,
    "silu": nn.silu,
    "swish": nn.silu,
    "tanh": jnp.tanh,
}
