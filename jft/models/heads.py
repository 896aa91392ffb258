# SPDX-License-Identifier: Apache-2.0
"""The heads that families share, and how their outputs look.

Each is called inside a compact method and names its parameters as transformers does.
Logits: sequence classification ``[B, C]``, token classification ``[B, L, C]``,
question answering ``[B, L, 2]`` (start, end), language models ``[B, L, V]``. The task
``base`` returns a dict with ``last_hidden_state [B, L, D]`` and, where the family has
a pooler, ``pooler_output [B, D]``.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jft.models.arrays import along_last
from jft.models.dropout import dropout
from jft.models.layers import Bias, Init, dense

# task -> regexes of the parameters of these heads, by their usual names
HEAD_RULES: Mapping[str, tuple[str, ...]] = {
    "base": (),
    "sequence_classification": (r"classifier/.*",),
    "token_classification": (r"classifier/.*",),
    "question_answering": (r"qa_outputs/.*",),
}


def token_dropout(*rates: float | None) -> float:
    """The first rate that is given: before a decoder's classifier of tokens.

    >>> token_dropout(None, 0.2)
    0.2
    """
    return next((rate for rate in rates if rate is not None), 0.1)


def classify_tokens(
    hidden: jax.Array,
    num_labels: int,
    *,
    rate: float,
    deterministic: bool,
    init: Init,
    name: str = "classifier",
) -> jax.Array:
    """Dropout, then scores of every token: ``[B, L, D] -> [B, L, C]``."""
    hidden = dropout(hidden, rate, deterministic=deterministic)
    return dense(hidden, num_labels, name=name, init=init)


def mark_span(hidden: jax.Array, *, init: Init) -> jax.Array:
    """Scores of every token as start and as end: ``[B, L, D] -> [B, L, 2]``."""
    return dense(hidden, 2, name="qa_outputs", init=init)


def score_words(
    x: jax.Array,
    tied: Callable[[jax.Array], jax.Array] | None,
    vocab_size: int,
    *,
    name: str,
    init: Init,
) -> jax.Array:
    """Score every word, with a bias of the layer's own: ``[B, L, D] -> [B, L, V]``.

    ``tied`` is the product with the embeddings; None gives the layer its own matrix.
    """
    if tied is None:
        return dense(x, vocab_size, name=name, init=init)
    return Bias(name=name)(tied(x))


def score_masked_words(
    module: nn.Module,
    x: jax.Array,
    tied: Callable[[jax.Array], jax.Array] | None,
    vocab_size: int,
    *,
    init: Init,
) -> jax.Array:
    """The same as BERT's kin name it: the bias is the calling module's own.

    Where it is not tied to the words, ``decoder`` has a bias of its own, and
    transformers keeps ``bias`` without using it.
    """
    bias = module.param("bias", nn.initializers.zeros, (vocab_size,))
    if tied is None:
        return dense(x, vocab_size, name="decoder", init=init)
    logits = tied(x)
    return logits + along_last(bias, logits)


def last_token(batch: Mapping[str, Any]) -> jax.Array:
    """Position of the last token that is no padding, ``[B]``; padding on any side."""
    shape = batch["input_ids"].shape
    mask = jnp.asarray(batch.get("attention_mask", jnp.ones(shape, jnp.int32)))
    return jnp.where(mask > 0, jnp.arange(shape[1])[None], 0).argmax(axis=-1)


def score_last_token(
    hidden: jax.Array, batch: Mapping[str, Any], num_labels: int, *, init: Init
) -> jax.Array:
    """A decoder's classifier, ``score``: ``[B, L, D] -> [B, C]``, without a bias.

    The token is found by ``attention_mask``; transformers finds it by the padding id.
    """
    last = hidden[jnp.arange(hidden.shape[0]), last_token(batch)]
    return dense(last, num_labels, name="score", init=init, bias=False)
