# SPDX-License-Identifier: Apache-2.0
"""Adapters of every method that were trained, for the tests of several of them."""

import jax
import jax.numpy as jnp
import numpy as np

import jft
from jft import partition
from jft.params import adapters
from jft.params.adapters import BitFit, Ia3, Lora
from jft.types import FROZEN

# what a row can have of its own, over one base, with the head of each
METHODS = {
    "plain": Lora(rank=2, targets=("query", "value")),
    "wide": Lora(
        rank=3,
        targets=("all-linear",),
        rank_pattern=(("value", 1),),
        alpha_pattern=(("key", 5.0),),
        rslora=True,
        bias="all",
    ),
    "lengths": Lora(rank=2, targets=("key", "attention/output/dense"), dora=True),
    "singular": Lora(rank=2, targets=("query",), init_method="pissa"),
    "words": Lora(rank=2, targets=("word_embeddings", "value"), bias="lora_only"),
    "factors": Ia3(
        targets=("key", r".*/\d+/output/dense", "intermediate/dense"),
        feedforward=(r"\d+/output/dense",),
    ),
    "biases": BitFit(),
}


def moved(model, seed, size=0.2):
    """The model with all that its adapter may change, changed."""
    base = partition.label_params(
        adapters.without_adapters(model.params), [(".*", "base")]
    )
    labels = adapters.label_adapted(model.params, base, model.adapter)
    rng = np.random.default_rng(seed)

    def move(x, label):
        noise = size * rng.normal(size=x.shape).astype(np.float32)
        return x if label == FROZEN else x + jnp.asarray(noise, x.dtype)

    return model._replace(params=jax.tree.map(move, model.params, labels))


def adapted(base, adapter, seed):
    return moved(jft.adapt(base, adapter, key=jax.random.key(seed)), seed)


def alike(base):
    """Two adapters of the same settings."""
    return jft.gather(
        base, {n: adapted(base, METHODS["plain"], i) for i, n in enumerate("ab")}
    )


def every_method(base):
    """An adapter of each method, gathered."""
    models = {n: adapted(base, x, i) for i, (n, x) in enumerate(METHODS.items())}
    return jft.gather(base, models)


def answers(model, batch):
    return np.asarray(jax.jit(model.apply_fn)(model.params, batch, key=None))
